"""A thousand cards in two hundred security groups: written in bounded time, and a change of one takes effect at once.

`pytest tests/scale -s` shows the figures, which docs/performance.md quotes.
"""

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from group_plans import group, of, rule, uid
from ovn_rig import OvnRig, eventually
from switched_network import SwitchedNetwork, card, overlay, subnet
from traffic import echo_reaches
from virtfleet_dev.cluster import leftovers

pytestmark = pytest.mark.alone

CARDS = 1000
GROUPS = 200
SWITCHES = 20
EFFECT_SECONDS = 1.0
"""A change of membership takes effect within this time."""
IDLE_SECONDS = 3.0


@pytest.fixture(scope="module")
def network(scratch: Path) -> Iterator[SwitchedNetwork]:
    """Two nodes of their own: what a thousand cards leave behind shall not slow other tests down."""
    rig = OvnRig(scratch / "ovn-scale")
    try:
        rig.up()
        with SwitchedNetwork(rig) as made:
            yield made
    finally:
        rig.down()
    assert leftovers(rig.fabric.id) == ()


def member_of(number: int) -> tuple[str, ...]:
    """Return the two groups of a card."""
    return uid("default", f"g{number % GROUPS}"), uid("default", f"g{(number * 7 + 1) % GROUPS}")


def test_a_thousand_cards_in_two_hundred_groups(network: SwitchedNetwork, show: Callable[[str], None]) -> None:
    begun, cpu = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    for number in range(SWITCHES):
        network.switch(overlay(f"s{number}", subnet(f"10.{number}.0.0/16")))
    for number in range(GROUPS):
        other = f"g{(number + 1) % GROUPS}"
        rules = [{**rule("TCP/80", "TCP/443"), "from": [of(other)]}, rule("ICMP")]
        network.group(group(f"g{number}", peers=(f"default/{other}",), intraGroup="Deny", ingress=rules))
    for number in range(CARDS):
        address = f"10.{number % SWITCHES}.{number >> 7}.{(number & 127) + 1}"
        plan = card(number + 1, f"s{number % SWITCHES}", address, groups=member_of(number))
        network.port(plan)
    network.writer.wait_written(*network.owners, seconds=60)
    written = time.monotonic() - begun
    network.settle()
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime
    settled = time.monotonic() - begun
    show(f"{CARDS} cards in {GROUPS} groups: written after {written:.1f} s, on the nodes after {settled:.1f} s")
    show(f"the writer took {spent:.1f} s of CPU")
    assert settled < 60

    target = card(CARDS + 1, "s0", "10.0.255.1", groups=(uid("default", "g0"),))
    shut = group("shut", intraGroup="Deny")
    network.group(shut)
    source = card(CARDS + 2, "s0", "10.0.255.2")
    probes = [network.plug(network.rig.nodes[place], plan) for place, plan in enumerate((source, target))]
    network.plugged(source, target)
    eventually(lambda: echo_reaches(probes[0], "10.0.255.1", 0.2), 10, "the tunnel")
    effects = []
    for reaches, groups in ((False, (shut.uid,)), (True, target.groups)) * 3:
        changed = time.monotonic()
        network.port(replace(target, groups=groups))
        eventually(lambda reaches=reaches: echo_reaches(probes[0], "10.0.255.1", 0.05) is reaches, 10, "the change")  # type: ignore[misc]
        effects.append(time.monotonic() - changed)
    show(f"a change of membership took effect after {min(effects):.2f} to {max(effects):.2f} s")
    assert sorted(effects)[len(effects) // 2] < EFFECT_SECONDS

    before = network.writer.call(lambda: network.writer.northbound.transactions)
    time.sleep(IDLE_SECONDS)
    assert network.writer.call(lambda: network.writer.northbound.transactions) == before, "nothing is written when idle"
