"""Which network cards of a document a running guest has, and which could be given to it.

As with disks, what the guest has is read from its domain and never remembered.
"""

from virtfleet_api.machine import Hardware, MachineInterface
from virtfleet_node.core.observed import AttachedCard, Observed, ObservedDomain
from virtfleet_node.core.places import assign, card_key


def card_name(seen: AttachedCard, domain: ObservedDomain) -> str:
    """Return the name of a card; empty for one that is not ours.

    A guest that was started before cards had names of ours has them by their MAC addresses.
    """
    if seen.name:
        return seen.name
    started = domain.stored.started if domain.stored else None
    return next((card.name for card in started.interfaces if card.mac == seen.mac), "") if started else ""


def attached_card(interface: MachineInterface, observed: Observed) -> AttachedCard | None:
    """Return what a running guest has of a card."""
    return next((seen for seen in observed.domain.cards if card_name(seen, observed.domain) == interface.name), None)


def unwanted_cards(hardware: Hardware, observed: Observed) -> tuple[AttachedCard, ...]:
    """Return the cards of the machine that a running guest has and its document does not; foreign ones are not ours."""
    wanted = {"", *(interface.name for interface in hardware.interfaces)}
    return tuple(seen for seen in observed.domain.cards if card_name(seen, observed.domain) not in wanted)


def attachable_card(interface: MachineInterface, hardware: Hardware, observed: Observed) -> bool:
    """Tell whether a card can be given to the guest while it runs: its place is there, and free."""
    if "q35" in observed.domain.machine_type:
        return assign(observed.places, hardware).ports[card_key(interface.name)] in observed.domain.free_ports
    return observed.domain.machine_type.startswith("pc")


def waiting_for_switch(hardware: Hardware, observed: Observed) -> tuple[MachineInterface, ...]:
    """Return the cards that cannot be plugged in because the node has no switch now."""
    if not observed.network_problem:
        return ()
    return tuple(card for card in hardware.interfaces if card.port and attached_card(card, observed) is None)
