"""The node's own firewall in a network namespace, with packets of peers and of strangers."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from network_namespace import socket_in
from virtfleet_api.node_network import NodeNetwork
from virtfleet_dev.fabric import Fabric
from virtfleet_node.agent.switch import Edges, NodeSwitch
from virtfleet_node.core.errors import InvalidError
from virtfleet_node.host.devices import Devices
from virtfleet_node.host.firewall import Firewall
from virtfleet_node.host.nftables import Nftables
from virtfleet_node.host.open_vswitch import OpenVSwitch
from virtfleet_node.host.programs import Programs

DAEMON, COPIES, SSH, LIBVIRT, MIGRATION, GENEVE = 8443, 8444, 22, 16509, 49200, 6081
SECONDS = 0.3
"""What is dropped is waited for; on a veth an answer takes less than a millisecond."""

Make = Callable[..., NodeSwitch]


@pytest.fixture(scope="module")
def fabric(scratch: Path) -> Iterator[Fabric]:
    made = Fabric.of(scratch / "firewall")
    try:
        made.up()
        for number in (1, 2, 3):
            made.attach(namespace(made, number), number)
            words = ("addr", "add", f"fd00::{number}/64", "dev", "eth0", "nodad")
            subprocess.run(["ip", "-n", namespace(made, number), *words], check=True)
        yield made
    finally:
        for number in (1, 2, 3):
            made.detach(namespace(made, number), number)
        made.down()


def namespace(fabric: Fabric, number: int) -> str:
    """Return the namespace of the node (1), of a peer (2), or of a stranger (3)."""
    return f"{fabric.id}-fw{number}"


@pytest.fixture
def make(fabric: Fabric, tmp_path: Path) -> Make:
    def made(*, enabled: bool = True) -> NodeSwitch:
        programs = Programs(["ip", "netns", "exec", namespace(fabric, 1)])
        firewall = Firewall(Nftables(programs), (DAEMON, COPIES), enabled=enabled)
        edges = Edges(OpenVSwitch(programs, tmp_path / "none.sock"), Devices(programs), firewall)
        return NodeSwitch(edges, tmp_path / "network.json", lambda: None)

    return made


@pytest.fixture
def peers(fabric: Fabric) -> NodeNetwork:
    return NodeNetwork(peers=(fabric.address(2), "fd00::2"))


@pytest.fixture(autouse=True)
def services(fabric: Fabric) -> Iterator[dict[int, socket.socket]]:
    """Listen on the node at its ports, those that the firewall closes and others."""
    with ExitStack() as stack:
        listeners = {}
        for port in (DAEMON, COPIES, SSH, LIBVIRT, MIGRATION):
            made = socket_in(namespace(fabric, 1), socket.AF_INET6, socket.SOCK_STREAM)
            listeners[port] = stack.enter_context(closing(made))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(("::", port))
            made.listen(8)
        yield listeners
    nft(fabric, "flush", "ruleset")


def reached(fabric: Fabric, number: int, port: int, target: str = "") -> bool:
    """Tell whether a namespace can make a TCP connection to the node."""
    target = target or fabric.address(1)
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with closing(socket_in(namespace(fabric, number), family, socket.SOCK_STREAM)) as client:
        client.settimeout(SECONDS)
        with suppress(OSError):
            client.connect((target, port))
            return True
    return False


def tunnelled(fabric: Fabric, number: int, port: int = GENEVE) -> bool:
    """Tell whether a packet of a namespace arrives at the node's port for tunnels."""
    with (
        closing(socket_in(namespace(fabric, 1), socket.AF_INET, socket.SOCK_DGRAM)) as tunnel,
        closing(socket_in(namespace(fabric, number), socket.AF_INET, socket.SOCK_DGRAM)) as sender,
    ):
        tunnel.bind((fabric.address(1), port))
        tunnel.settimeout(SECONDS)
        sender.sendto(b"packet", (fabric.address(1), port))
        with suppress(TimeoutError):
            return tunnel.recv(100) == b"packet"
    return False


def rules(fabric: Fabric) -> str:
    command = ["ip", "netns", "exec", namespace(fabric, 1), "nft", "list", "ruleset"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def nft(fabric: Fabric, *words: str) -> None:
    subprocess.run(["ip", "netns", "exec", namespace(fabric, 1), "nft", *words], check=True)


async def test_strangers_reach_what_is_not_the_fleets_and_peers_reach_all(
    fabric: Fabric, make: Make, peers: NodeNetwork
) -> None:
    switch = make()
    await switch.start()
    assert rules(fabric) == "", "a node that knows of no peers has closed its ports"
    assert reached(fabric, 3, DAEMON)
    assert tunnelled(fabric, 3)

    nft(fabric, "add", "table", "inet", "administrators")
    report = await switch.put(peers)
    assert report.firewall
    assert not report.connected
    closed = (DAEMON, COPIES, LIBVIRT, MIGRATION)
    assert [reached(fabric, 3, port) for port in closed] == [False] * 4
    assert [reached(fabric, 2, port) for port in (*closed, SSH)] == [True] * 5
    assert [reached(fabric, 1, port) for port in closed] == [True] * 4, "the node cannot reach itself"
    assert reached(fabric, 3, SSH)
    assert (reached(fabric, 3, DAEMON, "fd00::1"), reached(fabric, 2, DAEMON, "fd00::1")) == (False, True)
    assert (tunnelled(fabric, 3), tunnelled(fabric, 2), tunnelled(fabric, 3, 4790)) == (False, True, True)
    assert "table inet administrators" in rules(fabric)
    nft(fabric, "delete", "table", "inet", "administrators")


async def test_what_is_established_and_what_the_node_asks_for_passes(
    fabric: Fabric, make: Make, peers: NodeNetwork, services: dict[int, socket.socket]
) -> None:
    switch = make()
    with closing(socket_in(namespace(fabric, 3), socket.AF_INET, socket.SOCK_STREAM)) as client:
        client.settimeout(SECONDS)
        client.connect((fabric.address(1), DAEMON))
        await switch.put(peers)
        client.sendall(b"still there")
        accepted, _ = services[DAEMON].accept()
        with closing(accepted):
            accepted.settimeout(SECONDS)
            assert accepted.recv(100) == b"still there"
    with (
        closing(socket_in(namespace(fabric, 3), socket.AF_INET, socket.SOCK_STREAM)) as listener,
        closing(socket_in(namespace(fabric, 1), socket.AF_INET, socket.SOCK_STREAM)) as asking,
    ):
        listener.bind((fabric.address(3), 80))
        listener.listen(1)
        asking.bind((fabric.address(1), MIGRATION + 1))  # among the ports that are closed
        asking.settimeout(SECONDS)
        asking.connect((fabric.address(3), 80))


async def test_the_table_comes_back_after_a_flush_and_survives_a_restart_and_goes_when_disabled(
    fabric: Fabric, make: Make, peers: NodeNetwork
) -> None:
    switch = make()
    await switch.put(peers)
    there = rules(fabric)
    await switch.look()
    assert rules(fabric) == there, "it was loaded again without need"
    table = ("inet", "virtfleet")
    for damage in (("flush", "ruleset"), ("flush", "table", *table), ("flush", "set", *table, "peers4")):
        nft(fabric, *damage)
        assert rules(fabric) != there
        await switch.look()
        assert (rules(fabric), reached(fabric, 3, DAEMON), reached(fabric, 2, DAEMON)) == (there, False, True)
    nft(fabric, "flush", "ruleset")  # as a host that has started again
    again = make()
    await again.start()
    assert (rules(fabric), again.report.firewall if again.report else None) == (there, True)
    await again.put(NodeNetwork(peers=(fabric.address(3),)))
    assert (reached(fabric, 3, DAEMON), reached(fabric, 2, DAEMON)) == (True, False)
    disabled = make(enabled=False)
    await disabled.start()
    assert (rules(fabric), disabled.report) == ("", None)


async def test_what_is_no_address_is_refused_and_changes_nothing(fabric: Fabric, make: Make) -> None:
    switch = make()
    await switch.start()
    with pytest.raises(InvalidError, match=r"10\.0\.0\.300"):
        await switch.put(NodeNetwork(peers=("10.0.0.300",)))
    assert rules(fabric) == ""
