"""Display and console of a real guest through a real API server, while operators and daemons die."""

import itertools
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet import Fleet, eventually
from pictures import count_colours
from victims import kill
from viewing import proxy, see
from virtfleet_cli.rfb import Picture, RfbError
from virtfleet_dev.cluster import Cluster
from virtfleet_dev.guest_image import CMDLINE
from virtfleet_dev.paths import program

TALKING = "n=0; while :; do n=$((n+1)); echo LINE $n END; sleep 0.05; done\n"


def vm(cluster: Cluster, *words: str, user: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [program("kubectl-vm"), "--kubeconfig", user or cluster.control_plane.kubeconfig, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def sees(port: int) -> Picture | None:
    try:
        return see(port)
    except (OSError, RfbError, TimeoutError):
        return None  # the viewer is told nothing else; it connects again


def test_a_display_is_seen_through_the_api_server_whoever_dies(fleet: Fleet, scratch: Path) -> None:
    cluster = fleet.cluster
    fleet.machine("shown", display={"model": "virtio"})
    found = fleet.wait_ready("shown")
    assert found["status"]["machine"]["display"] == "virtio"
    described = vm(cluster, "describe", "shown").stdout
    assert re.search(r"Display +virtio", described)
    node = next(n for n in cluster.nodes if n.name == found["status"]["nodeName"])
    with proxy(cluster.control_plane.kubeconfig, "shown") as port:
        picture = see(port)
        assert (picture.width, picture.height) >= (640, 400)
        assert count_colours(picture) > 1
        kill(cluster.daemon(node))
        assert count_colours(eventually(lambda: sees(port), "the next daemon shows it")) > 1
        kill(cluster.operator)
        assert count_colours(eventually(lambda: sees(port), "the next operator shows it")) > 1

    done = vm(cluster, "screenshot", "shown", "-o", str(scratch / "shown.png"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    shown = subprocess.run(["file", scratch / "shown.png"], capture_output=True, text=True, check=True).stdout
    assert f"PNG image data, {picture.width} x {picture.height}, 8-bit/color RGB" in shown

    stranger = cluster.control_plane.write_kubeconfig(scratch / "stranger", "stranger", None)
    done = vm(cluster, "vnc", "shown", "--proxy-only", user=stranger)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("You may not do this: ")
    assert "virtualmachines/vnc" in done.stderr
    fleet.delete("shown")


def test_a_machine_without_a_display_says_what_to_write(fleet: Fleet) -> None:
    fleet.machine("blind")
    fleet.wait_ready("blind")
    done = vm(fleet.cluster, "vnc", "blind", "--proxy-only")
    assert done.returncode == 1
    assert "The guest was started without a display: add `display: {}` to the spec" in done.stderr
    fleet.patch("blind", {"display": {}})
    waits = eventually(lambda: (c := fleet.condition("blind", "RestartRequired")).get("status") == "True" and c, "edit")
    assert "display" in waits["message"]
    assert vm(fleet.cluster, "restart", "blind", "--wait").returncode == 0
    eventually(lambda: fleet.status("blind")["machine"].get("display") == "vga", "it has one")
    with proxy(fleet.cluster.control_plane.kubeconfig, "blind") as port:
        assert count_colours(eventually(lambda: sees(port), "it is seen")) > 1
    fleet.delete("blind")


def test_a_console_goes_on_after_the_leader_is_killed_and_misses_nothing(fleet: Fleet) -> None:
    cluster = fleet.cluster
    fleet.machine("talker", kernelBoot={"image": {"name": "tiny"}, "cmdline": CMDLINE})
    found = fleet.wait_ready("talker")
    node = next(n for n in cluster.nodes if n.name == found["status"]["nodeName"])
    eventually(lambda: "/ # " in fleet.console(node, found["metadata"]["uid"]), "a shell")
    command = [program("kubectl-vm"), "--kubeconfig", cluster.control_plane.kubeconfig, "console", "talker"]
    with started(command) as process:
        shown, said = Reader(process.stdout), Reader(process.stderr)
        assert process.stdin
        process.stdin.write(TALKING.encode())
        process.stdin.flush()
        eventually(lambda: len(shown.numbers()) > 20, "the guest talks")
        for time in (1, 2):
            before = shown.numbers()[-1]
            kill(cluster.operator)
            eventually(lambda time=time: said.text().count("Connected again.") == time, "it has connected again")
            eventually(lambda before=before: shown.numbers()[-1] > before + 40, "it goes on")
        process.terminate()
        assert process.wait(20) == 0
    numbers = shown.numbers()
    gaps = [(one, two) for one, two in itertools.pairwise(numbers) if two != one + 1]
    assert gaps == [], "every line is shown once"
    fleet.delete("talker")


@contextmanager
def started(command: list[str | Path]) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that does not outlive a test that fails."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


class Reader(threading.Thread):
    """Reads a pipe to its end."""

    def __init__(self, pipe: object) -> None:
        super().__init__(daemon=True)
        self._pipe, self._parts = pipe, bytearray()
        self.start()

    def run(self) -> None:
        while data := self._pipe.read1():  # type: ignore[attr-defined]
            self._parts += data

    def text(self) -> str:
        return bytes(self._parts).decode(errors="replace")

    def numbers(self) -> list[int]:
        return [int(number) for number in re.findall(r"LINE (\d+) END\r?\n", self.text())]
