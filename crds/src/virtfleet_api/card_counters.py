"""What has passed each network card of a machine: the answer to `GET /v1/machines/{uid}/interfaces` of its node.

Seen from the guest: received is what went towards it.
"""

from typing import Annotated

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.network import LinkState

Count = Annotated[int, Field(ge=0, lt=2**63)]


class CardCounters(Document):
    """A network card of a running guest, since it was plugged in."""

    name: Annotated[str, Field(max_length=63)]
    mac: Annotated[str, Field(max_length=17)]
    port: Annotated[str | None, Field(max_length=36)] = None
    """OVN's logical switch port; None behind NAT."""
    state: LinkState = LinkState.UP
    received_bytes: Count = 0
    received_packets: Count = 0
    received_drops: Count = 0
    sent_bytes: Count = 0
    sent_packets: Count = 0
    sent_drops: Count = 0


class CardCountersList(Document):
    """All cards of a machine; none while it does not run."""

    items: Annotated[tuple[CardCounters, ...], Field(max_length=64)] = ()
