"""The node reaches its guests from a port of their switch, whatever their groups say; nobody else does by that."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

import forward_victim
from forward_victim import running
from frames import arp_frame, udp_frame
from group_plans import group
from machine_rig import new_machine
from network_namespace import Capture, socket_in
from ovn_rig import OvnRig, Probe, eventually
from switched_network import SwitchedNetwork, card, overlay, subnet
from virtfleet_api.machine import Machine, MachineInterface
from virtfleet_api.virtual_switch import DefaultPolicy
from virtfleet_dev.node import Node
from virtfleet_node.agent import forwards
from virtfleet_node.agent.forwards import Forwards
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.forward import is_ours
from virtfleet_node.host.local_ports import LocalPorts
from virtfleet_node.host.programs import Programs
from virtfleet_operator.core.network.forward import find_forward, forwarder_of
from virtfleet_operator.core.network.subnets import Range
from virtfleet_operator.core.network.switch import forward_mac
from virtfleet_operator.core.network.topology import PortPlan, SubnetPlan

NODES_OWN = "10.1.0.254"
CLOSED = group("closed", ingress=[], egress=[])
PORT = 8080
VICTIM = Path(forward_victim.__file__)


def reached(cidr: str, switch: str) -> SubnetPlan:
    """Return a subnet that nodes reach guests of."""
    plan = subnet(cidr)
    network = plan.network
    last = int(network.broadcast_address) - (network.version == 4)
    given = Range(network, int(network.network_address) + 1, last, (), network[1])
    return replace(plan, forwarder=forwarder_of(switch, given))


LAN = overlay("lan", reached("10.1.0.0/24", "lan"))
TWIN = overlay("twin", reached("10.1.0.0/24", "twin"))
CLOSED_LAN = overlay("denied", reached("10.2.0.0/24", "denied"), default_policy=DefaultPolicy.DENY)
SIX = overlay("six", reached("fd00:6::/64", "six"))

MEMBER = card(1, "lan", "10.1.0.1", groups=(CLOSED.uid,))
NEIGHBOR = card(2, "lan", "10.1.0.2")
TWIN_CARD = card(3, "twin", "10.1.0.1")
ISOLATED = card(4, "denied", "10.2.0.1")
SIX_CARD = card(5, "six", "fd00:6::1", groups=(CLOSED.uid,))
CARDS = {"member": MEMBER, "neighbor": NEIGHBOR, "twin": TWIN_CARD, "isolated": ISOLATED, "six": SIX_CARD}


@pytest.fixture(scope="module")
def network(running_rig: OvnRig) -> Iterator[SwitchedNetwork]:
    with SwitchedNetwork(running_rig) as made:
        for switch in (LAN, TWIN, CLOSED_LAN, SIX):
            made.switch(switch)
        made.group(CLOSED)
        yield made


@pytest.fixture(scope="module")
def probes(network: SwitchedNetwork) -> dict[str, Probe]:
    found = {name: network.plug(network.rig.nodes[0], plan) for name, plan in CARDS.items()}
    network.plugged(*CARDS.values())
    return found


def machine(network: SwitchedNetwork, plan: PortPlan) -> Machine:
    path = find_forward(plan, network.switches[plan.switch])
    assert path is not None
    return new_machine(interfaces=(MachineInterface(name="eth0", mac=plan.mac, port=plan.id, mtu=1442, forward=path),))


def local_ports(node: Node) -> LocalPorts:
    return LocalPorts(
        Programs([str(word) for word in node.command()]), node.directory / "ovs-run" / "db.sock", node.root
    )


@asynccontextmanager
async def forwarding(node: Node, *documents: Machine) -> AsyncIterator[Forwards]:
    """Have a node forward, with nothing left of it afterwards."""
    made = Forwards(local_ports(node), {document.uid: running(document) for document in documents})
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert remains(node) == ()


def remains(node: Node) -> tuple[str, ...]:
    """Return what there is of the node's own ports: devices of Open vSwitch and namespaces."""
    ports = node.run("ovs-vsctl", "list-ports", "br-int").split()
    namespaces = [line.split()[0] for line in node.run("ip", "netns", "list").splitlines()]
    return tuple(name for name in (*ports, *namespaces) if is_ours(name))


async def says(forwarder: Forwards, document: Machine, text: bytes = b"hello") -> bytes:
    """Send something to the guest's echo server and return what comes back."""
    async with forwarder.open_forward(document.uid, PORT) as (reader, writer):
        writer.write(text)
        writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()


@pytest.mark.parametrize("name", ["member", "neighbor", "isolated"])
async def test_a_guest_is_reached_whatever_its_groups_say(
    network: SwitchedNetwork, probes: dict[str, Probe], name: str
) -> None:
    document = machine(network, CARDS[name])
    with probes[name].listen(PORT) as server:
        async with forwarding(network.rig.nodes[0], document) as forwarder:
            assert await says(forwarder, document) == b"hello"
            assert await says(forwarder, document, bytes(1 << 20)) == bytes(1 << 20)
        assert server.connections == 2


async def test_a_guest_with_ipv6_alone_is_reached_from_a_link_local_address(
    network: SwitchedNetwork, probes: dict[str, Probe]
) -> None:
    document = machine(network, SIX_CARD)
    with socket_in(probes["six"].namespace, socket.AF_INET6, socket.SOCK_STREAM) as server:
        server.bind(("::", PORT))
        server.listen()
        threading.Thread(target=answer_once, args=(server,), daemon=True).start()
        async with forwarding(network.rig.nodes[0], document) as forwarder:
            assert await says(forwarder, document) == b"from fe80"


def answer_once(server: socket.socket) -> None:
    connection, peer = server.accept()
    with connection:
        while connection.recv(4096):
            continue
        connection.sendall(f"from {peer[0][:4]}".encode())


async def test_others_are_kept_out_as_before(network: SwitchedNetwork, probes: dict[str, Probe]) -> None:
    node, document = network.rig.nodes[0], machine(network, MEMBER)
    with probes["member"].listen(PORT) as server:
        async with forwarding(node, document) as forwarder:
            assert await says(forwarder, document) == b"hello"
            assert not probes["neighbor"].connects("10.1.0.1", PORT)
            assert not probes["member"].connects(NODES_OWN, PORT), "nothing listens at the node's own port"
        assert server.connections == 1


async def test_two_switches_with_one_subnet_do_not_meet(network: SwitchedNetwork, probes: dict[str, Probe]) -> None:
    member, twin = machine(network, MEMBER), machine(network, TWIN_CARD)
    with probes["member"].listen(PORT) as one, probes["twin"].listen(PORT) as other:
        async with forwarding(network.rig.nodes[0], member, twin) as forwarder:
            async with forwarder.open_forward(member.uid, PORT), forwarder.open_forward(twin.uid, PORT):
                assert len(remains(network.rig.nodes[0])) == 4
            assert await says(forwarder, twin) == b"hello"
        assert (one.connections, other.connections) == (1, 2)


async def test_the_host_itself_is_not_touched(network: SwitchedNetwork, probes: dict[str, Probe]) -> None:
    node, document = network.rig.nodes[0], machine(network, MEMBER)
    looks = (("ip", "route", "show", "table", "all"), ("ip", "rule"), ("ip", "-6", "rule"))
    before = [node.run(*look) for look in looks]
    with probes["member"].listen(PORT):
        async with forwarding(node, document) as forwarder, forwarder.open_forward(document.uid, PORT):
            assert [node.run(*look) for look in looks] == before
            assert not any(is_ours(name) for name in node.run("ls", "/sys/class/net").split())


async def test_no_guest_can_take_the_nodes_address(network: SwitchedNetwork, probes: dict[str, Probe]) -> None:
    mac, member = forward_mac("lan"), probes["member"]
    frames = {
        "address": udp_frame((NEIGHBOR.mac, MEMBER.mac), (NODES_OWN, "10.1.0.1"), payload=b"forged-frame"),
        "both": udp_frame((mac, MEMBER.mac), (NODES_OWN, "10.1.0.1"), payload=b"forged-frame"),
        "arp": arp_frame(NEIGHBOR.mac, (NEIGHBOR.mac, NODES_OWN), "10.1.0.77"),
    }
    shown = {"address": b"forged-frame", "both": b"forged-frame", "arp": socket.inet_aton(NODES_OWN)}

    def arrive() -> dict[str, bool]:
        found = {}
        for name, frame in frames.items():
            with member.capture() as seen:
                probes["neighbor"].send_frames(*[frame] * 3)
                found[name] = bool(seen.wait(lambda content, name=name: shown[name] in content, 0.5))
        return found

    open_member = replace(MEMBER, groups=())
    network.port(open_member)
    network.settle()
    try:
        assert arrive() == {"address": False, "both": False, "arp": False}
        network.port(replace(NEIGHBOR, anti_spoof=False))
        network.settle()
        assert arrive() == {"address": True, "both": True, "arp": True}, "the guard is what stopped them"
        network.port(MEMBER)
        network.settle()
        assert connecting_as(probes["neighbor"], NODES_OWN, member) == 0, "the rule goes by the port"
        network.port(open_member)
        network.settle()
        assert connecting_as(probes["neighbor"], NODES_OWN, member) > 0
    finally:
        network.port(NEIGHBOR)
        network.port(MEMBER)
        network.settle()


def connecting_as(probe: Probe, address: str, target: Probe) -> int:
    """Ask for a connection from somebody else's address; return how much of that arrives."""
    probe.add_address(f"{address}/32")
    asked = bytes([6]), socket.inet_aton(address)
    try:
        with target.capture() as seen, socket_in(probe.namespace, socket.AF_INET, socket.SOCK_STREAM) as made:
            made.bind((address, 0))
            made.settimeout(0.5)
            with suppress(OSError):  # it gets no answer, or a refusal
                made.connect(("10.1.0.1", PORT))
            return sum(asked[0] == frame[23:24] and asked[1] == frame[26:30] for frame in frames_of(seen))
    finally:
        probe.run("ip", "addr", "del", f"{address}/32", "dev", "eth0")


def frames_of(seen: Capture) -> list[bytes]:
    seen.wait(lambda _: False, 0.1)
    return seen.frames


async def test_a_port_that_is_not_used_goes_and_comes_again(
    network: SwitchedNetwork, probes: dict[str, Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwards, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(forwards, "UNUSED_SECONDS", 0.5)
    node, document = network.rig.nodes[0], machine(network, MEMBER)
    with probes["member"].listen(PORT):
        async with forwarding(node, document) as forwarder:
            for _ in range(2):
                assert await says(forwarder, document) == b"hello"
                await asyncio.to_thread(eventually, lambda: remains(node) == (), 10, "removing the port")


async def test_what_somebody_removed_is_made_again(network: SwitchedNetwork, probes: dict[str, Probe]) -> None:
    node, document = network.rig.nodes[0], machine(network, MEMBER)
    with probes["member"].listen(PORT):
        async with forwarding(node, document) as forwarder:
            assert await says(forwarder, document) == b"hello"
            node.run("ovs-vsctl", "--timeout=10", "del-port", "br-int", next(iter(remains(node))))
            with pytest.raises(ConflictError, match=r"cannot be reached at 10\.1\.0\.1|does not answer at 10\.1\.0\.1"):
                await says(forwarder, document)
            assert await says(forwarder, document) == b"hello"


@pytest.mark.usefixtures("probes")
async def test_what_does_not_answer_is_said(network: SwitchedNetwork) -> None:
    document = machine(network, MEMBER)
    bare = new_machine(interfaces=(MachineInterface(name="eth0", mac=MEMBER.mac),))
    async with forwarding(network.rig.nodes[0], document, bare) as forwarder:
        with pytest.raises(ConflictError, match=r"refuses connections to 10\.1\.0\.1 port 8080: nothing"):
            await says(forwarder, document)
        with pytest.raises(ConflictError, match="None of its cards can be reached"):
            await says(forwarder, bare)


async def test_a_daemon_that_was_killed_leaves_nothing_to_the_next(
    network: SwitchedNetwork, probes: dict[str, Probe]
) -> None:
    node, document = network.rig.nodes[0], machine(network, MEMBER)
    arguments = {
        "prefix": [str(word) for word in node.command()],
        "switch": str(node.directory / "ovs-run" / "db.sock"),
        "root": str(node.root),
        "document": document.model_dump(mode="json"),
        "port": PORT,
    }
    with probes["member"].listen(PORT):
        command = [sys.executable, str(VICTIM), json.dumps(arguments)]
        victim = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert victim.stdout is not None
        assert await victim.stdout.readline() == b"held\n"
        victim.kill()
        await victim.wait()
        assert len(remains(node)) == 2
        async with forwarding(node, document) as forwarder:
            await asyncio.to_thread(eventually, lambda: remains(node) == (), 10, "sweeping")
            assert await says(forwarder, document) == b"hello"
