"""Who has which managed address: the names of VMAddresses, and what becomes of one.

An address is a card's from the moment its VMAddress is created until it is deleted. A VMAddress whose card is gone is
first marked as released and then kept for a cool-down, so that no peer's ARP cache, DNS cache or open connection
finds a stranger under it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from ipaddress import ip_address
from typing import Any

from virtfleet_api.names import API_VERSION, FIELD_MANAGER, MANAGED_BY_LABEL
from virtfleet_api.virtual_machine import RunStrategy, VirtualMachine
from virtfleet_api.virtual_machine_status import PrintableStatus
from virtfleet_api.vm_address import AddressHolder, VMAddress, VMAddressSpec
from virtfleet_operator.core.catalog import Catalog
from virtfleet_operator.core.network.address_name import address_name
from virtfleet_operator.core.network.cards import Card, find_cards
from virtfleet_operator.core.network.subnets import Range, parse_range
from virtfleet_operator.core.network.topology import IpAddress
from virtfleet_operator.core.verdict import quote


def holder_of(vm: VirtualMachine, card: Card) -> AddressHolder:
    """Return a card as the holder of an address."""
    meta = vm.metadata
    return AddressHolder(namespace=meta.namespace, name=meta.name, uid=meta.uid, interface=card.name)


def address_object(switch: str, address: IpAddress, holder: AddressHolder) -> dict[str, Any]:
    """Return the VMAddress to create."""
    spec = VMAddressSpec(switch=switch, address=str(address), holder=holder)
    metadata = {"name": address_name(switch, address), "labels": {MANAGED_BY_LABEL: FIELD_MANAGER}}
    return {"apiVersion": API_VERSION, "kind": "VMAddress", "metadata": metadata, "spec": spec.to_json_dict()}


def is_same_card(one: AddressHolder, other: AddressHolder) -> bool:
    """Tell whether two holders are one card."""
    return (one.uid, one.interface) == (other.uid, other.interface)


def held_by(found: VMAddress) -> str:
    """Say who holds an address."""
    holder = found.spec.holder
    return f"VirtualMachine {holder.namespace}/{holder.name} ({holder.interface})"


def clash(where: str, found: VMAddress) -> str:
    """Say that a wanted address is another card's."""
    return (
        f"{where}: {quote(found.spec.address)} on VirtualSwitch {found.spec.switch} is held by {held_by(found)}: "
        "write another address, or leave it out to get a free one"
    )


def address_clashes(vm: VirtualMachine, catalog: Catalog) -> tuple[str, ...]:
    """Say which addresses that a machine asks for are others'; for admission."""
    found = find_cards(vm, catalog)
    problems = []
    for card in found if isinstance(found, tuple) else ():
        for _, asked, field in card.families:
            taken = catalog.address(card.switch.metadata.name, ip_address(asked)) if asked else None
            if taken and taken.spec.released_at is None and not is_same_card(taken.spec.holder, holder_of(vm, card)):
                problems.append(clash(f"{card.where}.{field}", taken))
    return tuple(problems)


class Fate(Enum):
    """What becomes of a VMAddress."""

    KEEP = auto()
    RELEASE = auto()
    DELETE = auto()
    WAIT = auto()


@dataclass(frozen=True)
class Judgement:
    """What becomes of a VMAddress, and with WAIT after how long to look again."""

    fate: Fate
    after: timedelta = timedelta()


def judge(found: VMAddress, *, wanted: bool, cool_down: timedelta, now: datetime) -> Judgement:
    """Decide about a VMAddress; `wanted` says whether its card still has it."""
    released_at = found.spec.released_at
    if wanted:
        return Judgement(Fate.KEEP)
    if released_at is None:
        return Judgement(Fate.RELEASE)
    rest = released_at + cool_down - now
    return Judgement(Fate.WAIT, rest) if rest > timedelta() else Judgement(Fate.DELETE)


def has_port(vm: VirtualMachine, card: Card) -> bool:
    """Tell whether a card is plugged in: with dynamic binding only while its machine is to run, or does."""
    if not card.dynamic:
        return True
    off = vm.spec.run_strategy is RunStrategy.HALTED or vm.spec.power_state == "Stopped"
    return not off or vm.status.printable_status not in {PrintableStatus.STOPPED, None}


def pick_held(vm: VirtualMachine, card: Card, held: Iterable[VMAddress]) -> tuple[VMAddress, ...]:
    """Return the VMAddresses that a card has now, at most one of each family; the others of its own are left over."""
    mine = [a for a in held if a.spec.switch == card.switch.metadata.name]
    mine = [a for a in mine if is_same_card(a.spec.holder, holder_of(vm, card))]
    picked = (_pick(parse_range(subnet), asked, mine) for subnet, asked, _ in card.families)
    return tuple(found for found in picked if found is not None)


def _pick(given: Range, asked: str | None, mine: Iterable[VMAddress]) -> VMAddress | None:
    """Return the address of a family: the one asked for, else one that is not released, else one that was."""
    fitting = [a for a in mine if _fits(given, asked, ip_address(a.spec.address))]
    return min(fitting, key=lambda a: (a.spec.released_at is not None, int(ip_address(a.spec.address))), default=None)


def _fits(given: Range, asked: str | None, address: IpAddress) -> bool:
    return given.holds(address) and (asked is None or address == ip_address(asked))


def preferred(vm: VirtualMachine, card: Card, given: Range) -> tuple[IpAddress, ...]:
    """Return the addresses that a card was seen with: whose object somebody deleted, it shall have again."""
    shown = next((i for i in vm.status.interfaces if i.name == card.name), None)
    if shown is None or shown.switch != card.switch.metadata.name:
        return ()
    return tuple(a for text in shown.ip_addresses[:2] if given.holds(a := ip_address(text)))
