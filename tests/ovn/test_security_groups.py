"""What security groups let through and what not: every pair of cards, protocol and family that matters."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from group_plans import group, of, rule
from ovn_rig import OvnRig, Probe, eventually
from switched_network import SwitchedNetwork, card, overlay, subnet
from traffic import answering, echo_reaches, tcp_reaches, udp_reaches

GROUPS = (
    group(
        "web",
        ingress=[
            rule("TCP/80", "TCP/443", "TCP/8000-8003", "ICMP"),
            rule("UDP/53", **{"from": [{"cidr": "10.1.0.0/24", "except": ["10.1.0.9/32", "10.1.0.64/26"]}]}),
            rule("UDP/54", **{"from": [{"cidr": "fd00:1::/64", "except": ["fd00:1::9"]}]}),
        ],
    ),
    group(
        "db",
        peers=("default/web", "ops/admins"),
        intraGroup="Deny",
        ingress=[rule("TCP/5432", **{"from": [of("web")]}), rule(**{"from": [of("admins", "ops"), of("absent")]})],
    ),
    group("admins", "ops", ingress=[]),
    group(
        "narrow",
        peers=("default/db", "default/web"),
        egress=[
            rule("TCP/80", to=[of("web")]),
            rule("UDP/53", to=[{"cidr": "10.1.0.9"}, {"cidr": "fd00:1::9"}]),
            rule("ICMP/8", to=[{"cidr": "10.1.0.0/24"}]),
        ],
    ),
    group("mute", egress=[], ingress=[rule("ICMP")]),
)

CARDS = {
    "web-a": (0, 1, ("web",)),
    "web-b": (1, 2, ("web",)),
    "db-a": (0, 3, ("db",)),
    "db-b": (1, 4, ("db",)),
    "admin-b": (1, 5, ("admins",)),
    "narrow-a": (0, 6, ("narrow",)),
    "narrow-b": (1, 7, ("narrow",)),
    "mute-web-a": (0, 8, ("mute", "web")),
    "free-a": (0, 9, ()),
    "free-b": (1, 10, ()),
}
"""Node, number (the last part of its addresses) and groups."""

TCP_PORTS = (80, 81, 443, 5432, 8000, 8003, 8004)
UDP_PORTS = (53, 54, 80)


class Case(NamedTuple):
    source: str
    target: str
    what: str
    version: int
    passes: bool

    def __str__(self) -> str:
        return f"{self.source}-{self.target}-{self.what.replace('/', '')}-v{self.version}"


def both(source: str, target: str, what: str, *, passes: bool) -> list[Case]:
    return [Case(source, target, what, version, passes) for version in (4, 6)]


CASES = [
    # Ports, ranges, protocols; same node and across, both families.
    *both("free-a", "web-a", "TCP/80", passes=True),
    *both("free-a", "web-b", "TCP/80", passes=True),
    *both("free-b", "web-a", "TCP/443", passes=True),
    *both("free-a", "web-b", "TCP/8000", passes=True),
    *both("free-b", "web-a", "TCP/8003", passes=True),
    *both("free-a", "web-b", "TCP/8004", passes=False),
    *both("free-a", "web-a", "TCP/81", passes=False),
    *both("free-b", "web-a", "UDP/80", passes=False),
    *both("free-a", "web-b", "ICMP", passes=True),
    *both("free-a", "db-b", "ICMP", passes=False),
    # Ranges of addresses, and exceptions; a rule of one family says nothing of the other.
    Case("free-b", "web-a", "UDP/53", 4, passes=True),
    Case("free-a", "web-b", "UDP/53", 4, passes=False),
    Case("free-b", "web-a", "UDP/53", 6, passes=False),
    Case("free-b", "web-a", "UDP/54", 6, passes=True),
    Case("free-a", "web-b", "UDP/54", 6, passes=False),
    Case("free-b", "web-a", "UDP/54", 4, passes=False),
    # Other groups as peers, of this namespace and of another.
    *both("web-a", "db-b", "TCP/5432", passes=True),
    *both("web-b", "db-b", "TCP/5432", passes=True),
    *both("web-a", "db-b", "TCP/81", passes=False),
    *both("free-a", "db-b", "TCP/5432", passes=False),
    *both("admin-b", "db-a", "TCP/81", passes=True),
    *both("admin-b", "db-b", "UDP/80", passes=True),
    *both("db-a", "admin-b", "TCP/81", passes=False),
    # Within a group: allowed, and denied.
    *both("web-a", "web-b", "TCP/81", passes=True),
    *both("web-b", "web-a", "UDP/80", passes=True),
    *both("db-a", "db-b", "TCP/5432", passes=False),
    *both("db-b", "db-a", "ICMP", passes=False),
    # Egress: only what is listed, besides the own group.
    *both("narrow-a", "web-b", "TCP/80", passes=True),
    *both("narrow-a", "web-b", "TCP/443", passes=False),
    *both("narrow-a", "free-b", "TCP/80", passes=False),
    *both("narrow-b", "free-a", "UDP/53", passes=True),
    *both("narrow-b", "free-b", "UDP/53", passes=False),
    Case("narrow-a", "free-b", "ICMP", 4, passes=True),
    Case("narrow-a", "free-b", "ICMP", 6, passes=False),
    *both("narrow-a", "narrow-b", "TCP/81", passes=True),
    *both("free-a", "narrow-b", "TCP/80", passes=False),
    # Two groups: their rules add up, and one that lists what may go out limits the card.
    *both("free-b", "mute-web-a", "TCP/80", passes=True),
    *both("free-b", "mute-web-a", "ICMP", passes=True),
    *both("mute-web-a", "free-b", "TCP/80", passes=False),
    *both("mute-web-a", "web-b", "ICMP", passes=False),
    # Without a group, everything passes.
    *both("free-a", "free-b", "TCP/81", passes=True),
    *both("web-a", "free-b", "UDP/80", passes=True),
]


@pytest.fixture(scope="module")
def network(running_rig: OvnRig) -> Iterator[SwitchedNetwork]:
    with SwitchedNetwork(running_rig) as made:
        made.switch(overlay("lan", subnet("10.1.0.0/24"), subnet("fd00:1::/64")))
        for plan in GROUPS:
            made.group(plan)
        yield made


@pytest.fixture(scope="module")
def cards(network: SwitchedNetwork) -> dict[str, Probe]:
    uids = {plan.name: plan.uid for plan in GROUPS}
    plans = {
        name: card(number, "lan", *addresses(number), groups=tuple(uids[one] for one in groups))
        for name, (_, number, groups) in CARDS.items()
    }
    found = {name: network.plug(network.rig.nodes[CARDS[name][0]], plan) for name, plan in plans.items()}
    network.plugged(*plans.values())
    # The first packet through a tunnel is lost while the nodes find each other.
    eventually(lambda: echo_reaches(found["free-a"], address("free-b", 4), 0.2), 10, "the tunnel")
    eventually(lambda: echo_reaches(found["free-b"], address("free-a", 6), 0.2), 10, "the tunnel back")
    return found


@pytest.fixture(scope="module")
def results(cards: dict[str, Probe]) -> dict[Case, bool]:
    """All attempts at once: one that fails takes a second."""

    def attempt(case: Case) -> bool:
        source, target = cards[case.source], address(case.target, case.version)
        protocol, _, port = case.what.partition("/")
        if protocol == "ICMP":
            return echo_reaches(source, target)
        return (tcp_reaches if protocol == "TCP" else udp_reaches)(source, target, int(port))

    with ExitStack() as stack, ThreadPoolExecutor(len(CASES)) as pool:
        for probe in cards.values():
            stack.enter_context(answering(probe, tcp=TCP_PORTS, udp=UDP_PORTS))
        return dict(zip(CASES, pool.map(attempt, CASES), strict=True))


def addresses(number: int) -> tuple[str, str]:
    return f"10.1.0.{number}", f"fd00:1::{number}"


def address(name: str, version: int) -> str:
    return addresses(CARDS[name][1])[version == 6]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_matrix(case: Case, results: dict[Case, bool]) -> None:
    assert results[case] is case.passes
