"""What has passed through network cards, as the guest sees it."""

from collections.abc import Mapping
from dataclasses import dataclass

from virtfleet_api.node_api import InterfaceTraffic
from virtfleet_node.core.cards import card_name
from virtfleet_node.core.observed import ObservedDomain


@dataclass(frozen=True)
class Traffic:
    """Counters of a card since it was plugged in."""

    received_bytes: int = 0
    received_packets: int = 0
    received_drops: int = 0
    sent_bytes: int = 0
    sent_packets: int = 0
    sent_drops: int = 0


@dataclass(frozen=True)
class CardFigure:
    """The traffic of a card of a machine, for whoever counts."""

    namespace: str
    machine: str
    interface: str
    traffic: Traffic


def build_traffic(domain: ObservedDomain, counted: Mapping[str, Traffic]) -> tuple[InterfaceTraffic, ...]:
    """Return the cards of a guest with what was counted at the node's devices."""
    return tuple(
        InterfaceTraffic(
            name=card_name(card, domain),
            mac=card.mac,
            port=card.port,
            state=card.state,
            **(vars(counted[card.device]) if card.device in counted else {}),
        )
        for card in domain.cards
    )
