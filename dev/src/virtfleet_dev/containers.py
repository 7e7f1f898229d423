"""Build virtfleet's images from the Dockerfile: with Docker or Podman, else with buildah, which needs no registry."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from virtfleet_dev.machine_sources import authorities, write_apt_folder, write_pip_conf
from virtfleet_dev.nested_image import forget_unused
from virtfleet_dev.paths import cache_dir, checkout

TARGETS = ("operator", "node", "ovn", "libvirt")
REGISTRY = "localhost"
"""The host in the names of images that no registry has."""

BASE = "debian:12-slim"
_MADE_BASE = "localhost/virtfleet/base"


class ImagesError(Exception):
    """An image cannot be built; the text says what to do."""


@dataclass(frozen=True)
class Image:
    """An image that was built, and the archive of it that `ctr images import` and `docker load` take."""

    target: str
    name: str
    """`<registry>/virtfleet/<target>:<tag>`"""
    id: str
    """64 hexadecimal digits"""
    archive: Path


@dataclass(frozen=True)
class Container:
    """A container that runs nothing by itself."""

    program: tuple[str | Path, ...]
    id: str
    root: Path
    """Its root file system."""

    def command(self, *words: str | Path, arguments: Sequence[str] = ()) -> list[str | Path]:
        """Return the command that runs a program in it, as the image's user and with its environment."""
        return [*self.program, "run", "--isolation", "chroot", *arguments, self.id, "--", *words]


@dataclass(frozen=True)
class Order:
    """What is to be built."""

    targets: Sequence[str] = TARGETS
    registry: str = REGISTRY
    tag: str = ""
    """The version in pyproject.toml if left out."""
    base: str = ""
    """An image to start from; left out, BASE from its registry, or Debian 12 of this machine's mirror."""
    builder: str = ""
    """docker, podman or buildah; left out, the first of them that can build here."""
    fresh: bool = False
    """Use nothing of earlier builds: packages are the newest ones."""

    def of(self, *targets: str) -> "Order":
        """Return the same order for other targets."""
        return replace(self, targets=targets)

    def name(self, target: str) -> str:
        """Return the name of a target's image."""
        return f"{self.registry}/virtfleet/{target}:{self.tag or version()}"


def version() -> str:
    """Return virtfleet's version."""
    return str(tomllib.loads((checkout() / "pyproject.toml").read_text())["project"]["version"])


def build_images(order: Order, output: Path, say: Callable[[str], None] = print) -> list[Image]:
    """Build images and write `<output>/virtfleet-<target>-<tag>.tar` of each, unless it is there already.

    The first build takes minutes, one after a change of the code half a minute for each image.

    Raises:
        ImagesError: there is no builder here, or it failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    with locked_folder() as folder, tempfile.TemporaryDirectory() as secrets:
        program = order.builder or _find_builder(order.base or BASE)
        builder = Buildah(folder, order) if program == "buildah" else Docker(program, order)
        arguments = [*builder.prepare(Path(secrets), say), *_build_arguments(order, Path(secrets))]
        images = []
        for target in order.targets:
            say(f"Building {order.name(target)} with {program}")
            images.append(_build(builder, order, target, arguments, output))
        return images


class Docker:
    """Docker, or Podman, which takes the same words."""

    def __init__(self, program: str, order: Order) -> None:
        """Take the program and what is to be built."""
        self.command: list[str | Path] = [program]
        self._order = order

    def prepare(self, secrets: Path, say: Callable[[str], None]) -> list[str]:
        """Return the arguments of every build, whose files are in the folder `secrets`."""
        del say
        return [*_secret_arguments(secrets), "--build-arg", f"BASE={self._order.base or BASE}"]

    def save(self, name: str, archive: Path) -> None:
        """Write the archive of an image."""
        _run([*self.command, "save", "--output", archive, name])


class Buildah:
    """Builds as root without a daemon, with a storage in the cache, on a base made here unless one is named."""

    def __init__(self, folder: Path, order: Order) -> None:
        """Take the folder for the storage, and what is to be built."""
        if os.getuid() or (shutil.which("buildah") is None and shutil.which("apt-get") is None):
            raise ImagesError(
                "there is no Docker or Podman that can build here; root can build with buildah, on Debian"
            )
        self._folder = folder
        self._order = order
        self.command: list[str | Path] = ["buildah", "--root", folder / "storage", "--runroot", folder / "run"]

    def prepare(self, secrets: Path, say: Callable[[str], None]) -> list[str]:
        """Return the arguments of every build, whose files are in the folder `secrets`."""
        if shutil.which("buildah") is None:
            say("Installing buildah")
            _run(["apt-get", "update", "-qq"])
            _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "buildah"])
        write_apt_folder(secrets / "apt")
        return [
            *("--isolation", "chroot", "--network", "host", "--layers"),
            *("--volume", f"{secrets / 'apt'}:/etc/apt:ro"),
            *_secret_arguments(secrets),
            *("--build-arg", f"BASE={self._order.base or self._make_base(say)}"),
        ]

    def save(self, name: str, archive: Path) -> None:
        """Write the archive of an image."""
        _run([*self.command, "push", "--quiet", name, f"docker-archive:{archive}:{name}"])

    @contextmanager
    def container(self, image_id: str) -> Iterator["Container"]:
        """Return a container of an image that was built, and remove it afterwards."""
        made = self._print("from", "--quiet", "--pull-never", image_id)
        try:
            yield Container(tuple(self.command), made, Path(self._print("mount", made)))
        finally:
            self._print("rm", made)

    def _print(self, *words: str) -> str:
        return subprocess.run([*self.command, *words], check=True, capture_output=True, text=True).stdout.strip()

    def _make_base(self, say: Callable[[str], None]) -> str:
        sources = Path(__file__).with_name("base_image")
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources.iterdir()))).hexdigest()[:16]
        name = f"{_MADE_BASE}:{digest}"
        found = subprocess.run([*self.command, "inspect", "--type=image", name], check=False, capture_output=True)
        if found.returncode or self._order.fresh:
            say("Making Debian 12 from this machine's mirror")
            with tempfile.TemporaryDirectory(dir=self._folder) as context:
                _run(["bash", sources / "build.sh", Path(context, "base.tar")])
                for file in ("Dockerfile", "policy-rc.d"):
                    shutil.copyfile(sources / file, Path(context, file))
                _run([*self.command, "bud", "--quiet", "--isolation", "chroot", "--tag", name, context])
        return name


def _build(builder: Docker | Buildah, order: Order, target: str, arguments: Sequence[str], output: Path) -> Image:
    name = order.name(target)
    with tempfile.TemporaryDirectory() as folder:
        id_file = Path(folder, "id")
        files = ("--iidfile", id_file, checkout())
        _run([*builder.command, "build", "--target", target, "--tag", name, *arguments, *files])
        image_id = id_file.read_text().removeprefix("sha256:").strip()
    archive = output / f"virtfleet-{target}-{name.rpartition(':')[2]}.tar"
    if not _holds(archive, image_id, name):
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)  # buildah adds to an archive that exists
        builder.save(name, partial)
        partial.rename(archive)
    return Image(target, name, image_id, archive)


def _build_arguments(order: Order, folder: Path) -> list[str]:
    git = ("git", "-C", checkout(), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    revision = "unknown"
    with suppress(subprocess.CalledProcessError, FileNotFoundError):
        revision = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    # Not as an argument: buildah would take the label of an earlier build, whose text was the same.
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text((checkout() / "Dockerfile").read_text().replace("$REVISION", revision))
    fresh = ["--no-cache"] if order.fresh else []
    return [f"--file={dockerfile}", f"--build-arg=VERSION={version()}", *fresh]


def _secret_arguments(folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    write_pip_conf(folder / "pip.conf")
    trusted = authorities()
    return [
        f"--secret=id=pip.conf,src={folder / 'pip.conf'}",
        *([f"--secret=id=ca.crt,src={trusted}"] if trusted else []),
    ]


def _find_builder(base: str) -> str:
    for program in ("docker", "podman"):
        if shutil.which(program) is None:
            continue
        for words in (("image", "inspect", base), ("pull", "--quiet", base)):
            if subprocess.run([program, *words], check=False, capture_output=True).returncode == 0:
                return program
    return "buildah"


def _holds(archive: Path, image_id: str, name: str) -> bool:
    try:
        with tarfile.open(archive) as tar:
            manifest = tar.extractfile("manifest.json")
            held = json.load(manifest)[0] if manifest else {}
    except (OSError, KeyError, tarfile.TarError, ValueError):
        return False
    return image_id in held.get("Config", "") and name in (held.get("RepoTags") or ())


@contextmanager
def locked_folder() -> Iterator[Path]:
    """Return this week's folder, so that packages are never older; one build of a machine waits for the other."""
    parent = cache_dir() / "containers"
    folder = parent / time.strftime("%G-W%V", time.gmtime())
    folder.mkdir(parents=True, exist_ok=True)
    with (parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.touch()
        forget_unused(parent)
        yield folder


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise ImagesError(f"{command[0]} failed:\n" + "\n".join(done.stdout.splitlines()[-40:]))
