"""What can be changed of network cards while a guest runs, as the next actions."""

from collections.abc import Iterator
from datetime import datetime

from virtfleet_api.machine import Machine, MachineInterface
from virtfleet_node.core.actions import Action, AttachCard, DetachCard, SetLink
from virtfleet_node.core.cards import attachable_card, attached_card, unwanted_cards, waiting_for_switch
from virtfleet_node.core.desired.interfaces import build_limit
from virtfleet_node.core.due import Change, ask
from virtfleet_node.core.limit_actions import LimitCard
from virtfleet_node.core.observed import AttachedCard, Observed


def plan_cards(desired: Machine, observed: Observed, now: datetime) -> Iterator[Change]:
    """Return the changes of a running guest's cards: what shall go is asked for first, and may free a place."""
    for extra in unwanted_cards(desired.hardware, observed):
        yield ask(DetachCard(extra.alias), extra.alias, observed, now)
    waiting = waiting_for_switch(desired.hardware, observed)
    for interface in desired.hardware.interfaces:
        seen = attached_card(interface, observed)
        if seen is not None:
            yield from map(Change, _plan_card(interface, seen))
        elif interface not in waiting and attachable_card(interface, desired.hardware, observed):
            yield Change(AttachCard(interface))


def _plan_card(interface: MachineInterface, seen: AttachedCard) -> Iterator[Action]:
    if interface.state is not seen.state:
        yield SetLink(seen.alias, interface.state)
    limit = build_limit(interface.inbound)
    if seen.port is not None and seen.device and limit != seen.limit:
        yield LimitCard(seen.device, limit)
