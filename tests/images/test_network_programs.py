"""The image `ovn`: databases with TLS, northd, a switch and ovn-controller, each killed and started again."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from container_images import end, running
from ovn_rig import eventually
from virtfleet_dev.containers import Container
from virtfleet_dev.ovn import LocalTrust
from virtfleet_dev.pki import LocalAuthority, Pair

NAMESPACE = "image-ovn"
NODE = "node-1"
HOST = "127.0.0.1"
START_SECONDS = 60.0  # the first start makes the databases


class Programs:
    """Programs of the image, all in one container and in one network."""

    def __init__(self, container: Container, log: Path, stack: ExitStack) -> None:
        self.container = container
        self._log = log
        self._stack = stack

    def start(self, program: str, **environment: str) -> "subprocess.Popen[bytes]":
        words = [f"{name}={value}" for name, value in environment.items()]
        command = ("env", *words, "tini", "-s", "--", "virtfleet-ovn", program)
        log = self._log / f"{program}.log"
        return self._stack.enter_context(running(self.container, NAMESPACE, *command, log=log))

    def ask(self, *words: str) -> str:
        """Return what a program printed in the container, or an empty text while it fails."""
        command = ["nsenter", f"--net=/run/netns/{NAMESPACE}", *self.container.command(*words)]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()

    def install(self, authority: LocalAuthority, pair: Pair, folder: str) -> None:
        """Put a key, its certificate and the authority of the others where a Secret would be mounted."""
        place = self.container.root / folder
        place.mkdir(parents=True, exist_ok=True)
        for source, name in (
            (pair.key, "tls.key"),
            (pair.certificate, "tls.crt"),
            (authority.pair.certificate, "ca.crt"),
        ):
            (place / name).write_bytes(source.read_bytes())


@pytest.fixture
def programs(containers: dict[str, Container], tmp_path: Path) -> Iterator[Programs]:
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
        with ExitStack() as stack:
            yield Programs(containers["ovn"], tmp_path, stack)
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def test_a_node_joins_the_databases_of_the_image(programs: Programs, tmp_path: Path) -> None:
    trust = LocalTrust(tmp_path / "trust", HOST)
    for authority, folder in ((trust.northbound, "northbound"), (trust.southbound, "southbound")):
        programs.install(authority, authority.issue("server", "ovn-central", server_names=[HOST]), f"etc/ovn/{folder}")
    programs.install(trust.southbound, trust.chassis(NODE), "etc/ovn/chassis")

    northbound = programs.start("northbound", TLS_DIRECTORY="/etc/ovn/northbound", LISTEN=HOST)
    southbound = programs.start("southbound", TLS_DIRECTORY="/etc/ovn/southbound", LISTEN=HOST)
    programs.start("northd")
    wait(programs, "ovn-nbctl --timeout=5 get-connection", f"pssl:6641:{HOST}")
    wait(programs, "ovn-sbctl --timeout=5 get-connection", 'role="ovn-controller"')
    programs.ask("ovn-nbctl", "--timeout=30", "ls-add", "shop")
    wait(programs, "ovn-sbctl --timeout=5 --bare --columns=external_ids list datapath_binding", "name=shop")

    programs.start("switch-database")
    programs.start("switch", NODE_NAME=NODE, TUNNEL_ADDRESS=HOST, DATAPATH_TYPE="netdev")
    wait(programs, "ovs-vsctl --timeout=5 get open_vswitch . external_ids", f"system-id={NODE}")
    tls = [f"/etc/ovn/chassis/{name}" for name in ("tls.key", "tls.crt", "ca.crt")]
    remote = f'external_ids:ovn-remote="ssl:{HOST}:6642"'
    programs.ask("ovs-vsctl", "--no-wait", "set-ssl", *tls, "--", "set", "open_vswitch", ".", remote)
    programs.start("controller")
    wait(programs, "ovn-sbctl --timeout=5 --bare --columns=name list chassis", NODE)
    wait(programs, "ovn-appctl --timeout=5 -t ovn-controller connection-status", "connected")

    for process in (northbound, southbound):
        end(process, signal.SIGKILL)
    programs.start("northbound", TLS_DIRECTORY="/etc/ovn/northbound", LISTEN=HOST)
    programs.start("southbound", TLS_DIRECTORY="/etc/ovn/southbound", LISTEN=HOST)
    wait(programs, "ovn-nbctl --timeout=5 ls-list", "shop")
    programs.ask("ovn-nbctl", "--timeout=30", "ls-add", "second")
    wait(programs, "ovn-sbctl --timeout=5 --bare --columns=external_ids list datapath_binding", "name=second")
    wait(programs, "ovn-appctl --timeout=5 -t ovn-controller connection-status", "connected")


def test_a_program_that_is_not_there_is_named(programs: Programs) -> None:
    command = programs.container.command("virtfleet-ovn", "router")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode
    assert "usage: northbound | southbound" in done.stderr


def wait(programs: Programs, command: str, expected: str) -> None:
    eventually(lambda: expected in programs.ask(*command.split()), START_SECONDS, f"{expected!r} by {command}")
