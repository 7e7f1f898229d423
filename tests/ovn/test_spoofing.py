"""Lies of a guest about who it is: none arrives, and each does once the guard is off, so that the test can see it."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Final

import pytest

from frames import arp_frame, udp_frame
from frames6 import (
    ALL_NODES,
    ALL_NODES_MAC,
    dhcp_offer,
    link_local,
    neighbor_advertisement,
    router_advertisement,
    tagged,
    udp6_frame,
)
from group_plans import group, rule
from ovn_rig import OvnRig, Probe, eventually
from switched_network import SwitchedNetwork, card, overlay, subnet
from traffic import echo_reaches
from virtfleet_operator.core.network.topology import AllowedPair

LIAR = card(1, "lan", "10.1.0.1", "fd00:1::1")
NEIGHBOR = card(2, "lan", "10.1.0.2", "fd00:1::2")
VICTIM = card(3, "lan", "10.1.0.3", "fd00:1::3")
GROUP = group("any", ingress=[rule()])

MAC, LINK_LOCAL = LIAR.mac, link_local(LIAR.mac)
TO_VICTIM = (MAC, VICTIM.mac)
FORGED_MAC = "02:00:00:00:66:66"
MARK: Final = b"forged-frame-1"
SENT = 5
PREFIX = "fd00:666::"

Frame = tuple[bytes, bytes]
"""A frame, and what in it shows that it is this one."""


def udp(mac: str, address: str) -> Frame:
    return udp_frame((mac, VICTIM.mac), (address, "10.1.0.3"), payload=MARK), MARK


def udp6(mac: str, address: str) -> Frame:
    return udp6_frame((mac, VICTIM.mac), (address, "fd00:1::3"), payload=MARK), MARK


def arp(mac: str, claim: tuple[str, str]) -> Frame:
    frame = arp_frame(mac, claim, claim[1])
    return frame, frame[20:32]


def advertise(mac: str, source: str, claim: tuple[str, str]) -> Frame:
    frame = neighbor_advertisement((mac, ALL_NODES_MAC), (source, ALL_NODES), claim)
    return frame, frame[54:]


TRUE = {
    "udp": udp(MAC, "10.1.0.1"),
    "udp6": udp6(MAC, "fd00:1::1"),
    "udp6-link-local": udp6(MAC, LINK_LOCAL),
    "arp": arp(MAC, (MAC, "10.1.0.1")),
    "neighbor": advertise(MAC, "fd00:1::1", (MAC, "fd00:1::1")),
}
ROUTER = router_advertisement(MAC, LINK_LOCAL, PREFIX)
FORGED = {
    "mac": udp(FORGED_MAC, "10.1.0.1"),
    "ipv4": udp(MAC, "10.1.0.99"),
    "ipv4-of-neighbor": udp(MAC, "10.1.0.2"),
    "mac-and-ipv4": udp(FORGED_MAC, "10.1.0.99"),
    "ipv6": udp6(MAC, "fd00:1::99"),
    "ipv6-link-local": udp6(MAC, "fe80::99"),
    "mac-with-ipv6": udp6(FORGED_MAC, "fd00:1::1"),
    "arp-address": arp(MAC, (MAC, "10.1.0.2")),
    "arp-mac": arp(MAC, (FORGED_MAC, "10.1.0.1")),
    "arp-sender": arp(FORGED_MAC, (MAC, "10.1.0.1")),
    "neighbor-address": advertise(MAC, "fd00:1::1", (MAC, "fd00:1::2")),
    "neighbor-mac": advertise(MAC, "fd00:1::1", (FORGED_MAC, "fd00:1::1")),
    "neighbor-source": advertise(MAC, "fd00:1::2", (MAC, "fd00:1::2")),
    "dhcp-server": (dhcp_offer(TO_VICTIM, ("10.1.0.1", "10.1.0.66"), MARK), MARK),
    "dhcp-server-known": (udp_frame(TO_VICTIM, ("10.1.0.1", "10.1.0.3"), (67, 68), MARK), MARK),
    "dhcp6-server": (udp6_frame(TO_VICTIM, (LINK_LOCAL, link_local(VICTIM.mac)), (547, 546), MARK), MARK),
}
ROUTER_FRAME = {"router": (ROUTER, ROUTER[54:])}
"""northd lets neighbour discovery pass before all rules, and router advertisements with it: where a card has IPv6, the
node must stop them."""
HOPPING = {
    "tag": (tagged(101, udp(MAC, "10.1.0.1")[0]), MARK),
    "two-tags": (tagged(1, tagged(101, udp(MAC, "10.1.0.1")[0])), MARK),
}


@pytest.fixture(scope="module")
def network(running_rig: OvnRig) -> Iterator[SwitchedNetwork]:
    with SwitchedNetwork(running_rig) as made:
        made.switch(overlay("lan", subnet("10.1.0.0/24"), subnet("fd00:1::/64")))
        made.group(GROUP)
        yield made


@pytest.fixture(scope="module")
def probes(network: SwitchedNetwork) -> dict[str, Probe]:
    plans = {"liar": LIAR, "neighbor": NEIGHBOR, "victim": VICTIM}
    found = {name: network.plug(network.rig.nodes[name == "victim"], plan) for name, plan in plans.items()}
    network.plugged(*plans.values())
    eventually(lambda: echo_reaches(found["liar"], "10.1.0.3", 0.2), 10, "the tunnel")
    return found


def arrivals(probes: dict[str, Probe], frames: dict[str, Frame]) -> dict[str, int]:
    """Send every frame from the liar; return how many of each arrived, wherever most did."""
    victim, neighbor = probes["victim"], probes["neighbor"]
    counts = {}
    for name, (frame, shown) in frames.items():
        with victim.capture() as at_victim, neighbor.capture() as at_neighbor:
            probes["liar"].send_frames(*[frame] * SENT)
            probes["liar"].send_frames(udp_frame(TO_VICTIM, ("10.1.0.1", "10.1.0.3"), payload=b"end-of-frames"))
            assert at_victim.wait(lambda seen: b"end-of-frames" in seen, 5)
            counts[name] = max(
                capture.wait(lambda seen, shown=shown: shown in seen, 0.02) for capture in (at_victim, at_neighbor)
            )
    return counts


@pytest.fixture(params=["without-groups", "with-groups"])
def guarded(request: pytest.FixtureRequest, network: SwitchedNetwork, probes: dict[str, Probe]) -> dict[str, Probe]:
    """Stateful rules come with flows of northd's own, which let neighbour discovery pass before any rule."""
    groups = (GROUP.uid,) if request.param == "with-groups" else ()
    for plan in (LIAR, NEIGHBOR, VICTIM):
        network.port(replace(plan, groups=groups))
    network.settle()
    return probes


def test_what_is_true_arrives(guarded: dict[str, Probe]) -> None:
    assert arrivals(guarded, TRUE) == dict.fromkeys(TRUE, SENT)


def test_no_lie_arrives(guarded: dict[str, Probe]) -> None:
    assert arrivals(guarded, FORGED | HOPPING) == dict.fromkeys(FORGED | HOPPING, 0)


def test_lies_arrive_once_the_guard_is_off(network: SwitchedNetwork, probes: dict[str, Probe]) -> None:
    for plan in (LIAR, NEIGHBOR, VICTIM):
        network.port(replace(plan, anti_spoof=False))
    network.settle()
    assert arrivals(probes, FORGED | ROUTER_FRAME) == dict.fromkeys(FORGED | ROUTER_FRAME, SENT)


def test_a_card_with_ipv4_alone_sends_no_ipv6(network: SwitchedNetwork, guarded: dict[str, Probe]) -> None:
    """So nobody can pose as a router where there is no IPv6, which is the usual attack."""
    frames = ROUTER_FRAME | {name: frame for name, frame in (TRUE | FORGED).items() if frame[0][12:14] == b"\x86\xdd"}
    network.port(replace(LIAR, addresses=LIAR.addresses[:1]))
    network.settle()
    assert arrivals(guarded, frames) == dict.fromkeys(frames, 0)
    assert arrivals(guarded, {"udp": TRUE["udp"]}) == {"udp": SENT}


def test_allowed_addresses_may_be_used(network: SwitchedNetwork, guarded: dict[str, Probe]) -> None:
    virtual_mac = "00:00:5e:00:01:01"
    shared = {
        "own-mac": udp(MAC, "10.1.0.100"),
        "own-mac-range": udp(MAC, "10.9.9.9"),
        "own-mac-arp": arp(MAC, (MAC, "10.1.0.100")),
        "virtual-mac": udp(virtual_mac, "10.1.0.101"),
        "virtual-mac-arp": arp(virtual_mac, (virtual_mac, "10.1.0.101")),
        "own-mac-ipv6": udp6(MAC, "fd00:1::100"),
    }
    others = {"virtual-mac-own": udp(virtual_mac, "10.1.0.1"), "own-mac-virtual": udp(MAC, "10.1.0.101")}
    assert arrivals(guarded, shared) == dict.fromkeys(shared, 0)
    allowed = [(MAC, "10.1.0.100"), (MAC, "10.9.9.0/24"), (MAC, "fd00:1::100"), (virtual_mac, "10.1.0.101")]
    pairs = tuple(AllowedPair(mac, ip_network(text)) for mac, text in allowed)
    network.port(replace(LIAR, allowed=pairs))
    network.settle()
    # In user space, Open vSwitch 3.1 goes on dropping a neighbour advertisement that it has dropped before, against its
    # own flow table, for as long as it is sent: what it has cached is thrown away.
    for node in network.rig.nodes:
        node.run("ovs-appctl", "revalidator/purge")
    wanted = dict.fromkeys(shared | TRUE, SENT)
    eventually(lambda: arrivals(guarded, shared | TRUE) == wanted, 10, "what is allowed arrives")
    forged = {**FORGED, **HOPPING, **others}
    assert arrivals(guarded, forged) == dict.fromkeys(forged, 0)
