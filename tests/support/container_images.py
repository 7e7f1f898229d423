"""The images of this checkout as tests look at them: files, configuration, and programs that run in them."""

import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ovn_rig import eventually
from virtfleet_dev.containers import Container, Image, Order

ORDER = Order(builder="buildah")


def configuration(image: Image) -> dict[str, object]:
    """Return what an archive says of how to run the image."""
    with tarfile.open(image.archive) as tar:
        member = tar.extractfile(f"{image.id}.json")
        assert member is not None
        return dict(json.load(member)["config"])


def files(root: Path) -> Iterator[Path]:
    """Return all files of a root file system, links as well."""
    for folder, _folders, names in os.walk(root):
        yield from (Path(folder, name) for name in names)


def components(root: Path) -> dict[str, dict[str, object]]:
    """Return the list of what is in the image, by name; a Debian package and a Python package may share one."""
    document = json.loads((root / "usr/share/virtfleet/sbom.json").read_text())
    return {component["bom-ref"]: component for component in document["components"]}


def run(container: Container, *words: str, user: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program in a container until it ends; stdout has what it printed, stderr as well what buildah says."""
    arguments = [f"--user={user}"] if user else []
    return subprocess.run(container.command(*words, arguments=arguments), check=False, capture_output=True, text=True)


@contextmanager
def running(container: Container, namespace: str, *words: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program in a container and in a network namespace of /run/netns; SIGKILL in the end."""
    enter = ["nsenter", f"--net=/run/netns/{namespace}", *container.command(*words)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            enter, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        end(process, signal.SIGKILL)


def end(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Send a signal to the program and all that runs for it, and wait until they are gone."""
    pids = [process.pid, *_descendants(process.pid)]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    process.wait(30)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 30, "the end of all processes")


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [found for child in children for found in (*_descendants(child), child)]
