"""Changes of groups, rules and members while traffic flows."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from group_plans import group, of, rule
from ovn_rig import OvnRig, Probe, eventually
from switched_network import SwitchedNetwork, card, controller_log, overlay, subnet
from traffic import Stream, answering, echo_reaches, tcp_reaches
from virtfleet_api.virtual_switch import DefaultPolicy
from virtfleet_operator.core.network.group import LOGGED_PER_SECOND
from virtfleet_operator.core.network.topology import PortPlan

EFFECT_SECONDS = 1.0
"""A change takes effect within this time."""

OPEN = group("open", ingress=[rule("UDP/7000")])
SHUT = group("open", ingress=[])
SERVER = group("server", ingress=[rule("TCP/80")])
CLIENTS = group("clients")

CLIENT = card(1, "lan", "10.1.0.1", "fd00:1::1")
TARGET = card(2, "lan", "10.1.0.2", "fd00:1::2")
OTHER = card(3, "lan", "10.1.0.3", "fd00:1::3")


@pytest.fixture(scope="module")
def network(running_rig: OvnRig) -> Iterator[SwitchedNetwork]:
    with SwitchedNetwork(running_rig) as made:
        made.switch(overlay("lan", subnet("10.1.0.0/24"), subnet("fd00:1::/64")))
        yield made


@pytest.fixture(scope="module")
def plugged(network: SwitchedNetwork) -> list[Probe]:
    """A client on the first node, a target on the second, and another one."""
    plans = (CLIENT, TARGET, OTHER)
    probes = [network.plug(network.rig.nodes[node], plan) for node, plan in zip((0, 1, 0), plans, strict=True)]
    network.plugged(*plans)
    eventually(lambda: echo_reaches(probes[0], "10.1.0.2", 0.2), 10, "the tunnel")
    return probes


@pytest.fixture
def probes(network: SwitchedNetwork, plugged: list[Probe]) -> list[Probe]:
    """The cards without any group."""
    for plan in (CLIENT, TARGET, OTHER):
        network.port(plan)
    network.settle()
    return plugged


def member(plan: PortPlan, *groups: str) -> PortPlan:
    return replace(plan, groups=groups)


def test_a_rule_takes_effect_within_a_second(network: SwitchedNetwork, probes: list[Probe]) -> None:
    network.group(SHUT)
    network.port(member(TARGET, OPEN.uid))
    network.settle()
    took = []
    with Stream(probes[0], probes[1], "10.1.0.2") as stream:
        for _ in range(3):
            start = time.monotonic()
            network.group(OPEN)
            took.append(stream.first_after(start))
            start = time.monotonic()
            network.group(SHUT)
            took.append(stream.last_after(start))
    assert max(took) <= EFFECT_SECONDS
    print(f"rule changes took {[round(one * 1000) for one in took]} ms")  # noqa: T201 -- shown with -s


def test_a_member_joins_and_leaves_within_a_second(network: SwitchedNetwork, probes: list[Probe]) -> None:
    peers = ("default/clients",)
    network.group(CLIENTS)
    network.group(group("open", peers=peers, ingress=[rule("UDP/7000", **{"from": [of("clients")]})]))
    network.port(member(TARGET, OPEN.uid))
    network.settle()
    took = []
    with Stream(probes[0], probes[1], "10.1.0.2") as stream:
        for _ in range(3):
            start = time.monotonic()
            network.port(member(CLIENT, CLIENTS.uid))
            took.append(stream.first_after(start))
            start = time.monotonic()
            network.port(CLIENT)
            took.append(stream.last_after(start))
    assert max(took) <= EFFECT_SECONDS
    print(f"membership changes took {[round(one * 1000) for one in took]} ms")  # noqa: T201 -- shown with -s


def test_a_connection_outlives_what_does_not_concern_it(network: SwitchedNetwork, probes: list[Probe]) -> None:
    network.group(SERVER)
    network.group(CLIENTS)
    network.port(member(TARGET, SERVER.uid))
    network.settle()
    with probes[1].listen(80), probes[0].connect("10.1.0.2", 80) as connection:

        def echoes() -> bool:
            connection.sendall(b"still there?")
            return connection.recv(64) == b"still there?"

        assert echoes()
        network.group(group("server", ingress=[rule("UDP/9"), rule("TCP/80"), rule("TCP/81")]))
        network.group(OPEN)
        network.port(member(TARGET, SERVER.uid, OPEN.uid))
        network.port(member(CLIENT, CLIENTS.uid))
        network.port(member(OTHER, SERVER.uid))
        network.settle()
        assert echoes()
        network.group(SERVER)
        network.port(member(TARGET, SERVER.uid))
        network.port(CLIENT)
        network.port(OTHER)
        network.settle()
        assert echoes()


def test_a_rule_that_is_gone_lets_nothing_new_in(network: SwitchedNetwork, probes: list[Probe]) -> None:
    network.group(SERVER)
    network.port(member(TARGET, SERVER.uid))
    network.settle()
    with probes[1].listen(80):
        assert tcp_reaches(probes[0], "10.1.0.2", 80)
        with probes[0].connect("10.1.0.2", 80, 0.5) as connection:
            network.group(group("server", ingress=[rule("TCP/81")]))
            network.settle()
            assert not tcp_reaches(probes[0], "10.1.0.2", 80, 0.5)
            # Nor does what was let in before go on, unlike with Linux' own firewall.
            connection.sendall(b"still there?")
            with pytest.raises(TimeoutError):
                connection.recv(64)
        network.group(SERVER)
        network.settle()
        assert tcp_reaches(probes[0], "10.1.0.2", 80)


def test_the_last_group_taken_away_leaves_the_default(network: SwitchedNetwork, probes: list[Probe]) -> None:
    network.group(SERVER)
    network.port(member(TARGET, SERVER.uid))
    network.settle()
    with answering(probes[1], tcp=(81,)):
        assert not tcp_reaches(probes[0], "10.1.0.2", 81, 0.5)
        network.port(TARGET)
        network.settle()
        assert tcp_reaches(probes[0], "10.1.0.2", 81)


def test_policy_deny_shuts_cards_without_a_group(network: SwitchedNetwork, probes: list[Probe]) -> None:
    lan = network.switches["lan"]
    with answering(probes[1], tcp=(80,)), answering(probes[0], tcp=(80,)):
        network.group(SERVER)
        network.switch(replace(lan, default_policy=DefaultPolicy.DENY))
        network.port(member(TARGET, SERVER.uid))
        network.port(CLIENT)
        network.settle()
        assert not tcp_reaches(probes[0], "10.1.0.2", 80, 0.5)  # the client has no group: nothing leaves it
        assert not tcp_reaches(probes[1], "10.1.0.1", 80, 0.5)
        network.group(CLIENTS)
        network.port(member(CLIENT, CLIENTS.uid))
        network.settle()
        assert tcp_reaches(probes[0], "10.1.0.2", 80)
        assert not tcp_reaches(probes[1], "10.1.0.1", 80, 0.5)
        network.switch(lan)


def test_a_group_that_goes_takes_the_rules_that_name_it(network: SwitchedNetwork, probes: list[Probe]) -> None:
    network.group(CLIENTS)
    network.group(group("server", peers=("default/clients",), ingress=[rule(**{"from": [of("clients")]})]))
    network.port(member(TARGET, SERVER.uid))
    network.port(member(CLIENT, CLIENTS.uid))
    network.settle()
    with answering(probes[1], tcp=(80,)):
        assert tcp_reaches(probes[0], "10.1.0.2", 80)
        network.remove(CLIENTS)
        network.rig.wait_synced()
        assert not tcp_reaches(probes[0], "10.1.0.2", 80, 0.5)
        network.group(CLIENTS)
        network.settle()
        assert tcp_reaches(probes[0], "10.1.0.2", 80)


def test_drops_are_logged_on_request_and_a_flood_of_them_is_not(network: SwitchedNetwork, probes: list[Probe]) -> None:
    def logged() -> int:
        lines = (line for node in network.rig.nodes for line in controller_log(node).splitlines())
        return sum('name="default/open"' in line and "verdict=drop" in line for line in lines)

    network.group(SHUT)
    network.port(member(TARGET, SHUT.uid))
    network.settle()
    with Stream(probes[0], probes[1], "10.1.0.2"):
        time.sleep(0.5)
        assert logged() == 0
        network.group(group("open", ingress=[], logDrops=True))
        eventually(logged, 5, "a line of the log")
        before = logged()
        time.sleep(2)
        assert (
            logged() - before <= 2 * LOGGED_PER_SECOND * 2
        )  # of some thousand packets; the meter's second is not ours
    network.group(SHUT)
    network.settle()
