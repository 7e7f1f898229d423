"""The image `libvirt`: its daemons serve root by their sockets, and start again after a kill."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from container_images import end, run, running
from ovn_rig import eventually
from virtfleet_dev.containers import Container

NAMESPACE = "image-libvirt"
START_SECONDS = 90.0  # QEMU is asked what it can do, under emulation


@pytest.fixture
def namespace() -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    yield NAMESPACE
    subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def test_libvirtd_serves_and_knows_its_qemu(containers: dict[str, Container], namespace: str, tmp_path: Path) -> None:
    container = containers["libvirt"]

    def ask(*words: str) -> str:
        return run(container, "virsh", "--connect", "qemu:///system", *words).stdout

    def served() -> bool:
        return "/usr/bin/qemu-system-x86_64" in ask("domcapabilities", "--virttype", "qemu", "--machine", "q35")

    with ExitStack() as stack:

        def start(program: str) -> "subprocess.Popen[bytes]":
            command = ("tini", "-s", "--", "virtfleet-libvirt", program)
            return stack.enter_context(running(container, namespace, *command, log=tmp_path / f"{program}.log"))

        start("virtlogd")
        libvirtd = start("libvirtd")
        eventually(served, START_SECONDS, "libvirtd")
        assert ask("net-list", "--name").split() == []
        end(libvirtd, signal.SIGKILL)
        start("libvirtd")
        eventually(served, START_SECONDS, "libvirtd, again")
