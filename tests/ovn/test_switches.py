"""Switches: VLANs on the wire, addresses and names for guests, limits, and the way out."""

import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from dhcp6 import solicit
from group_plans import group
from network_namespace import socket_in, tcpdump
from ovn_rig import OvnRig, Probe, eventually
from switched_network import SwitchedNetwork, card, overlay, subnet, uplink
from traffic import answering, echo_reaches, tcp_reaches, udp_reaches
from virtfleet_dev.node import Node
from virtfleet_operator.core.network.switch import SERVICE_ADDRESS
from virtfleet_operator.core.network.topology import OutboundPlan, PortPlan, RateLimit

MEGABIT = 1_000_000
FRAME_OVERHEAD = 42
"""Bytes of Ethernet, IPv4 and UDP before a datagram's content."""

DHCP_SCRIPT = """\
#!/bin/sh
[ "$1" = bound ] && echo "BOUND ip=$ip mask=$mask router=$router dns=$dns mtu=$mtu domain=$domain lease=$lease \\
routes=$staticroutes hostname=$hostname" | tr -d '\\n'
"""


@pytest.fixture
def network(rig: OvnRig) -> Iterator[SwitchedNetwork]:
    with SwitchedNetwork(rig) as made:
        yield made


@pytest.fixture
def physical(rig: OvnRig) -> OvnRig:
    """Nodes whose physical network is what their node daemons would set up."""
    for node in rig.nodes:
        bridge = ("--may-exist", "add-br", "br-ex", "--", "set", "bridge", "br-ex", "datapath_type=netdev")
        node.run("ovs-vsctl", *bridge, "--", "--may-exist", "add-port", "br-ex", "x0")
        node.run("ovs-vsctl", "set", "open", ".", "external_ids:ovn-bridge-mappings=physnet:br-ex")
    return rig


@pytest.fixture
def dhcp_script(tmp_path: Path) -> Path:
    path = tmp_path / "bound.sh"
    path.write_text(DHCP_SCRIPT)
    path.chmod(0o755)
    return path


def lease(probe: Probe, script: Path) -> dict[str, str]:
    """Return what a DHCP client is told."""
    done = probe.run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "8", "-T", "1", "-s", str(script),
                     "-O", "mtu", "-O", "staticroutes", "-O", "hostname")  # fmt: skip
    assert "BOUND" in done.stdout, done.stdout + done.stderr
    return dict(re.findall(r"(\w+)=(.*?)(?= \w+=|$)", done.stdout.strip()))


def plug_all(network: SwitchedNetwork, plans: dict[str, tuple[Node, PortPlan]]) -> dict[str, Probe]:
    found = {name: network.plug(node, plan) for name, (node, plan) in plans.items()}
    network.plugged(*(plan for _, plan in plans.values()))
    return found


def test_vlans_are_tagged_and_apart(physical: OvnRig, network: SwitchedNetwork) -> None:
    network.switch(uplink("lab", None, 101, 102))
    first, second = physical.nodes
    probes = plug_all(
        network,
        {
            "101-a": (first, card(1, "lab", "10.5.0.1", vlan=101)),
            "101-b": (second, card(2, "lab", "10.5.0.2", vlan=101)),
            "102-a": (first, card(3, "lab", "10.5.0.3", vlan=102)),
            "102-b": (second, card(4, "lab", "10.5.0.4", vlan=102)),
            "plain-a": (first, card(5, "lab", "10.5.0.5")),
            "plain-b": (second, card(6, "lab", "10.5.0.6")),
        },
    )
    pairs = (("101-a", "10.5.0.2", "vlan 101"), ("102-b", "10.5.0.3", "vlan 102"), ("plain-a", "10.5.0.6", ""))
    for source, target, tag in pairs:
        eventually(lambda source=source, target=target: echo_reaches(probes[source], target, 0.3), 10, source)
        with tcpdump(*physical.fabric.physical_network, "icmp or (vlan and icmp)") as lines:
            assert echo_reaches(probes[source], target)
        assert lines
        assert all((tag in line) if tag else ("vlan" not in line) for line in lines if "ethertype" in line), lines
    for source, target in (("101-a", "10.5.0.3"), ("101-a", "10.5.0.4"), ("102-b", "10.5.0.1"), ("plain-a", "10.5.0.2"),
                           ("101-b", "10.5.0.5")):  # fmt: skip
        assert not echo_reaches(probes[source], target, 0.3), (source, target)


def test_guests_are_told_their_addresses(rig: OvnRig, network: SwitchedNetwork, dhcp_script: Path) -> None:
    lan = replace(subnet("10.1.0.0/24", "10.1.0.254"), dns=(ip_address("10.1.0.53"), ip_address("9.9.9.9")))
    network.switch(overlay("lan", replace(lan, domain="lab.example"), subnet("fd00:1::/64")))
    strict = group("strict", egress=[])
    network.group(strict)
    open_card = card(1, "lan", "10.1.0.1", "fd00:1::1")
    strict_card = card(2, "lan", "10.1.0.2", "fd00:1::2", groups=(strict.uid,))
    probes = {}
    for node, plan in zip(rig.nodes, (open_card, strict_card), strict=True):
        network.port(plan)
        probes[plan.id] = rig.probe(node, plan.id, plan.mac)
    network.plugged(open_card, strict_card)
    for plan, last in ((open_card, 1), (strict_card, 2)):
        told = lease(probes[plan.id], dhcp_script)
        assert (told["ip"], told["mask"], told["router"]) == (f"10.1.0.{last}", "24", "10.1.0.254")
        assert (told["dns"], told["mtu"], told["domain"]) == ("10.1.0.53 9.9.9.9", "1442", "lab.example")
        assert told["hostname"] == f"vm-{last}"
        assert solicit(probes[plan.id]) == f"fd00:1::{last}"


def test_names_are_answered_by_the_switch(rig: OvnRig, network: SwitchedNetwork, dhcp_script: Path) -> None:
    network.switch(overlay("lan", replace(subnet("10.1.0.0/24", "10.1.0.254"), domain="lab.example")))
    one, two = card(1, "lan", "10.1.0.1"), card(2, "lan", "10.1.0.2")
    probes = plug_all(network, {"one": (rig.nodes[0], one), "two": (rig.nodes[1], two)})
    told = lease(probes["one"], dhcp_script)
    assert told["dns"] == SERVICE_ADDRESS
    assert told["routes"] == f"{SERVICE_ADDRESS}/32 0.0.0.0 0.0.0.0/0 10.1.0.254"
    probes["one"].run("ip", "route", "add", SERVICE_ADDRESS, "dev", "eth0")
    assert "10.1.0.2" in look_up(probes["one"], "vm-2.default.lab.example")
    assert "10.1.0.1" in look_up(probes["one"], "VM-1.default.lab.example")
    network.port(replace(two, host_name="renamed.default"))
    network.settle()
    assert "10.1.0.2" in look_up(probes["one"], "renamed.default.lab.example")
    assert "10.1.0.2" not in look_up(probes["one"], "vm-2.default.lab.example")


def look_up(probe: Probe, name: str) -> str:
    done = probe.run("timeout", "1", "busybox", "nslookup", "-type=a", name, SERVICE_ADDRESS)
    return done.stdout.partition("Name:")[2]


def test_what_a_card_sends_is_limited(rig: OvnRig, network: SwitchedNetwork) -> None:
    network.switch(overlay("lan", subnet("10.1.0.0/24")))
    limited, target = card(1, "lan", "10.1.0.1"), card(2, "lan", "10.1.0.2")
    probes = plug_all(network, {"limited": (rig.nodes[0], limited), "target": (rig.nodes[0], target)})
    for megabits in (4, 10):
        network.port(replace(limited, outbound=RateLimit(megabits * MEGABIT, 20_000)))
        network.settle()
        assert rate(probes["limited"], probes["target"], "10.1.0.2") == pytest.approx(megabits * MEGABIT, rel=0.1)
    network.port(limited)
    network.settle()
    assert rate(probes["limited"], probes["target"], "10.1.0.2") > 15 * MEGABIT


def rate(source: Probe, target: Probe, address: str, seconds: float = 1.5) -> float:
    """Return how many bits a second arrive of twice as many as any limit here, once its burst is used up."""
    content = bytes(1200)
    sender = socket_in(source.namespace, socket.AF_INET, socket.SOCK_DGRAM)
    receiver = socket_in(target.namespace, socket.AF_INET, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.bind(("0.0.0.0", 9000))  # noqa: S104 -- in a namespace of its own
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.setblocking(False)  # noqa: FBT003 -- the socket module's own signature
        flood(sender, address, content, 0.4)
        drain(receiver)
        start = time.monotonic()
        flood(sender, address, content, seconds)
        elapsed = time.monotonic() - start
        time.sleep(0.05)
        return drain(receiver) * (len(content) + FRAME_OVERHEAD) * 8 / elapsed


def flood(sender: socket.socket, address: str, content: bytes, seconds: float) -> None:
    """Send some 20 Mbit/s."""
    start, sent = time.monotonic(), 0
    while (passed := time.monotonic() - start) < seconds:
        while sent < passed * 2000:
            sender.sendto(content, (address, 9000))
            sent += 1
        time.sleep(0.001)


def drain(receiver: socket.socket) -> int:
    count = 0
    while True:
        try:
            receiver.recv(2048)
        except BlockingIOError:
            return count
        count += 1


def test_guests_reach_out_under_one_address(physical: OvnRig, network: SwitchedNetwork) -> None:
    outside = "203.0.113.1"
    network.switch(uplink("lab", 7))
    way_out = OutboundPlan("lab", 7, IPv4Address("203.0.113.10"), 24, None, tuple(n.name for n in physical.nodes))
    network.switch(replace(overlay("lan", subnet("10.1.0.0/24", "10.1.0.254")), outbound=way_out))
    first, second = physical.nodes
    guests = plug_all(
        network,
        {
            "one": (first, card(1, "lan", "10.1.0.1")),
            "two": (second, card(2, "lan", "10.1.0.2")),
            "outside": (second, card(3, "lab", outside, vlan=7)),
        },
    )
    for name in ("one", "two"):
        guests[name].run("ip", "route", "add", "default", "via", "10.1.0.254")
    with answering(guests["outside"], tcp=(80,), udp=(53,)), answering(guests["one"], tcp=(80,)):
        for name in ("one", "two"):
            eventually(lambda name=name: tcp_reaches(guests[name], outside, 80, 0.5), 10, f"the way out of {name}")
        with tcpdump(*physical.fabric.physical_network, "vlan 7 and ip") as lines:
            assert tcp_reaches(guests["two"], outside, 80)
            assert udp_reaches(guests["two"], outside, 53)
        assert any("203.0.113.10" in line for line in lines)
        assert not any("10.1.0." in line for line in lines)
        guests["outside"].run("ip", "route", "add", "10.1.0.0/24", "via", "203.0.113.10")
        for address in ("203.0.113.10", "10.1.0.1"):
            assert not tcp_reaches(guests["outside"], address, 80, 0.5)
