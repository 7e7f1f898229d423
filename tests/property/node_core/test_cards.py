"""Network cards of a running guest, planned one step at a time until nothing differs any more."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtfleet_api.machine import Hardware, InterfaceLimit, Machine, MachineInterface, Run
from virtfleet_api.network import LinkState, NicModel
from virtfleet_node.core.actions import Action, AttachCard, DetachCard, SetLink
from virtfleet_node.core.changed import changed_fields, held_interfaces
from virtfleet_node.core.desired.interfaces import ALIAS_PREFIX, build_limit
from virtfleet_node.core.due import ASK_AGAIN
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.limit_actions import LimitCard
from virtfleet_node.core.observed import HOLDS_AFTER, Asking, AttachedCard, DomainState, Observed, ObservedDomain
from virtfleet_node.core.places import card_key
from virtfleet_node.core.plan import plan
from virtfleet_node.core.plan_live import plan_live
from virtfleet_node.core.record import Life, Stored, new_stored
from virtfleet_node.core.report import build_report

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PORTS = ("aaaaaaaa-0000-4000-8000-00000000000a", "aaaaaaaa-0000-4000-8000-00000000000b")
LIMIT = InterfaceLimit(bits_per_second=20_000_000, burst_bytes=250_000)

cards = st.lists(
    st.builds(
        MachineInterface,
        name=st.sampled_from(("eth0", "eth1", "eth2")),
        mac=st.just("52:54:00:00:00:01"),
        port=st.sampled_from((None, *PORTS)),
        state=st.sampled_from(LinkState),
        inbound=st.sampled_from((None, LIMIT)),
    ),
    unique_by=lambda card: card.name,
).map(tuple)


def machine(*interfaces: MachineInterface) -> Machine:
    hardware = Hardware(memory_bytes=1 << 28, interfaces=interfaces)
    return Machine(uid=PORTS[0], namespace="shop", name="web", run=Run.RUNNING, hardware=hardware)


def card(name: str = "eth0", **more: object) -> MachineInterface:
    return MachineInterface(name=name, mac="52:54:00:00:00:01", **more)


def seen(interface: MachineInterface) -> AttachedCard:
    """Return what a guest has of a card."""
    on_switch = interface.port is not None
    return AttachedCard(
        alias=f"{ALIAS_PREFIX}{interface.name}",
        mac=interface.mac,
        name=interface.name,
        model=interface.model,
        port=interface.port,
        state=interface.state,
        limit=build_limit(interface.inbound if on_switch else None),
        mtu=interface.mtu if on_switch else None,
        device=f"tap-{interface.name}" if on_switch else "",
    )


def running(desired: Machine, *has: AttachedCard, **more: object) -> Observed:
    stored = new_stored(desired)
    record = stored.record.model_copy(update={"life": Life.RUNNING})
    kept = Stored(desired=desired, started=desired.hardware, record=record, places=stored.places)
    taken = {kept.places.ports.get(card_key(one.name), 0) for one in has}
    domain = ObservedDomain(
        DomainState.RUNNING,
        stored=kept,
        machine_type="pc-q35-7.2",
        cards=has,
        free_ports=frozenset(range(1, 32)) - taken,
    )
    return Observed(domain, **more)


def step(has: dict[str, AttachedCard], action: Action) -> None:
    """Do to the guest what an action does."""
    match action:
        case AttachCard(interface):
            assert interface.name not in has
            has[interface.name] = seen(interface)
        case DetachCard(alias):
            del has[alias.removeprefix(ALIAS_PREFIX)]
        case SetLink(alias, state):
            name = alias.removeprefix(ALIAS_PREFIX)
            has[name] = replace(has[name], state=state)
        case LimitCard(device, limit):
            name = device.removeprefix("tap-")
            has[name] = replace(has[name], limit=limit)


@settings(max_examples=20)
@given(cards, cards)
def test_a_guest_gets_what_its_document_says_and_then_is_left_alone(
    before: tuple[MachineInterface, ...], after: tuple[MachineInterface, ...]
) -> None:
    has = {interface.name: seen(interface) for interface in before}
    desired = machine(*after)
    actions, _ = plan_live(desired, running(desired, *has.values()), NOW)
    for action in actions:
        step(has, action)
    observed = running(desired, *has.values())
    assert plan_live(desired, observed, NOW) == ((), None)
    moved = {old.name for old in before for new in after if old.name == new.name and old.port != new.port}
    assert set(changed_fields(desired.hardware, desired.hardware, observed)) == {f"networks[{n}].switch" for n in moved}
    report = build_report(desired, observed, GuestFacts(), NOW)
    assert [(i.name, i.state) for i in report.interfaces] == [(i.name, i.state) for i in after]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"mac": "52:54:00:00:00:02"}, "macAddress"),
        ({"model": NicModel.E1000E}, "model"),
        ({"port": PORTS[1]}, "switch"),
        ({"port": None, "mtu": None}, "switch"),
        ({"mtu": 9000}, "mtu"),
    ],
)
def test_what_waits_for_the_next_start_is_named(change: dict[str, object], word: str) -> None:
    had = card(port=PORTS[0], mtu=1442)
    desired = machine(had.model_copy(update=change))
    observed = running(desired, seen(had))
    assert plan_live(desired, observed, NOW) == ((), None)
    assert changed_fields(machine(had).hardware, desired.hardware, observed) == (f"networks[eth0].{word}",)


def test_a_card_without_a_free_port_waits_for_the_next_start() -> None:
    desired = machine(card())
    observed = running(desired)
    full = replace(observed, domain=replace(observed.domain, free_ports=frozenset()))
    assert plan_live(desired, full, NOW) == ((), None)
    assert changed_fields(machine().hardware, desired.hardware, full) == ("networks[eth0]",)


def test_a_guest_is_asked_again_for_a_card_that_it_holds_and_then_told_of() -> None:
    desired, held = machine(), seen(card())
    first = Asking(NOW, NOW)
    observed = running(desired, held, asked={held.alias: first})
    assert plan_live(desired, observed, NOW) == ((), NOW + HOLDS_AFTER)
    assert held_interfaces(desired.hardware, observed, NOW) == ()
    told = NOW + HOLDS_AFTER
    assert held_interfaces(desired.hardware, observed, told) == ("eth0",)
    assert plan_live(desired, observed, told) == ((), NOW + ASK_AGAIN)
    assert plan_live(desired, observed, NOW + ASK_AGAIN) == ((DetachCard(held.alias),), None)
    assert build_report(desired, observed, GuestFacts(), told).held_interfaces == ("eth0",)


def test_cards_that_others_have_attached_are_left_alone() -> None:
    desired = machine()
    foreign = AttachedCard(alias="net7", mac="52:54:00:00:00:77")
    assert plan_live(desired, running(desired, foreign), NOW) == ((), None)


def test_a_card_from_before_names_is_known_by_its_address() -> None:
    had = machine(card())
    old = replace(seen(card()), alias="net0", name="")
    assert plan_live(had, running(had, old), NOW) == ((), None)
    gone = machine()
    observed = running(had, old)
    assert plan_live(gone, observed, NOW)[0] == (DetachCard("net0"),)


def test_without_a_switch_a_machine_waits_and_says_so() -> None:
    desired = machine(card("eth0"), card("eth1", port=PORTS[0]))
    why = "This node has no Open vSwitch."
    off = Observed(ObservedDomain(DomainState.OFF, stored=new_stored(desired)), network_problem=why)
    assert plan(desired, off, NOW).actions == ()
    report = build_report(desired, off, GuestFacts(), NOW)
    assert (report.phase, report.reason, report.message) == ("Provisioning", "WaitingForNetwork", why)
    up = running(desired, seen(card("eth0")), network_problem=why)
    assert plan_live(desired, up, NOW) == ((), None)
    report = build_report(desired, up, GuestFacts(), NOW)
    assert (report.phase, report.reason, report.message) == ("Running", "WaitingForNetwork", why)
    assert report.restart_required == ()
    assert plan_live(desired, replace(up, network_problem=""), NOW)[0] == (AttachCard(desired.hardware.interfaces[1]),)
