"""The cards of a machine get their addresses and their ports, before its node is told of them."""

from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_address
from typing import Final

from virtfleet_api.machine import Machine
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_address import AddressHolder, VMAddress
from virtfleet_operator.core.network.addresses import (
    address_object,
    clash,
    has_port,
    holder_of,
    is_same_card,
    pick_held,
    preferred,
)
from virtfleet_operator.core.network.cards import Card, find_cards, plugged, port_id, switched
from virtfleet_operator.core.network.forward import find_forward, with_forwards
from virtfleet_operator.core.network.plans import build_port, build_switch
from virtfleet_operator.core.network.subnets import Range, choose_address, parse_range
from virtfleet_operator.core.network.topology import IpAddress, PortPlan
from virtfleet_operator.core.validate.address import address_problems
from virtfleet_operator.core.validate.virtual_switch import switch_problems
from virtfleet_operator.core.verdict import Invalid, Waiting
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.errors import ConflictError
from virtfleet_operator.kube.paths import OUR_PATHS, Key
from virtfleet_operator.reconcile.catalog import ADDRESS, BY_HOLDER
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import write_spec

_NO_ENGINE: Final = Waiting(
    "NoNetworkEngine",
    "This operator has no OVN to make switches with: write ovn into its configuration, or use networks with user: {}.",
)


async def connect_cards(context: Context, vm: VirtualMachine) -> Waiting | Invalid | None:
    """Give each card on a switch its addresses and its port; say what stands in the way.

    Raises:
        KubeError: an address could not be written down; the machine must not be told of it.
    """
    cards = find_cards(vm, context.catalog)
    if not isinstance(cards, tuple):
        return cards
    if context.network is None:
        return _NO_ENGINE if cards else None
    for card in cards:
        if has_port(vm, card):
            obstacle = await _assign(context, vm, card)
            if obstacle is not None:
                return obstacle
    restore_ports(context, vm)
    return None


def restore_ports(context: Context, vm: VirtualMachine) -> None:
    """Plug in the cards that have their addresses; the first thing a new leader does, before it decides anything."""
    if context.network is None:
        return
    ports, cards = [], plugged(vm, context.catalog)
    for card in cards:
        held = pick_held(vm, card, addresses_of(context, vm.metadata.uid))
        addresses = tuple(ip_address(found.spec.address) for found in held if found.spec.released_at is None)
        if len(addresses) == len(card.families) and has_port(vm, card):
            ports.append(build_port(vm, card, addresses, context.catalog))
    context.network.put_ports(vm.metadata.uid, (*ports, *_kept(context, vm, {card.name for card in cards})))


def with_paths(context: Context, document: Machine) -> Machine:
    """Return a document with how the node reaches those of the machine's cards that are plugged in."""
    paths = {}
    for port in context.network.ports_of(document.uid) if context.network else ():
        switch = context.catalog.virtual_switch(port.switch)
        if switch is not None and not switch_problems(switch):
            paths[port.interface] = find_forward(port, build_switch(switch, (), (), context.catalog))
    return with_forwards(document, paths)


def _kept(context: Context, vm: VirtualMachine, known: Collection[str]) -> Iterator[PortPlan]:
    """Leave cards as they are whose switch is there and not valid now; yield those that this process has plugged in."""
    former = {port.interface: port for port in context.network.ports_of(vm.metadata.uid)} if context.network else {}
    for _, nic, switch in switched(vm):
        if nic.name in known or context.catalog.virtual_switch(switch) is None or context.network is None:
            continue
        if nic.name in former:
            yield former[nic.name]
        else:
            context.network.keep_ports([port_id(vm.metadata.uid, nic.name)])


def addresses_of(context: Context, uid: str) -> tuple[VMAddress, ...]:
    """Return the addresses that a machine has, and those it had last."""
    return authentic(context.cache.find(ADDRESS, BY_HOLDER, uid))


def authentic(found: Iterable[Stored]) -> tuple[VMAddress, ...]:
    """Return the VMAddresses that stand for an address: those whose name says which."""
    resources = (stored.resource for stored in found)
    return tuple(one for one in resources if isinstance(one, VMAddress) and not address_problems(one))


async def _assign(context: Context, vm: VirtualMachine, card: Card) -> Waiting | Invalid | None:
    """Make sure that a card has an address of each family of its switch."""
    for subnet, asked, field in card.families:
        given = parse_range(subnet)
        if asked is not None and (clashing := await _claim(context, vm, card, ip_address(asked), field)):
            return clashing
        if asked is None and (exhausted := await _keep_or_choose(context, vm, card, given)):
            return exhausted
    return None


async def _claim(context: Context, vm: VirtualMachine, card: Card, address: IpAddress, field: str) -> Invalid | None:
    """Take the address that a card asks for, unless another has it; one that was given back may be taken at once."""
    name, holder = card.switch.metadata.name, holder_of(vm, card)
    found = context.catalog.address(name, address)
    if found is None:
        found = await _create(context, name, address, holder)
    if is_same_card(found.spec.holder, holder) and found.spec.released_at is None:
        return None
    if found.spec.released_at is None:
        return Invalid((clash(f"{card.where}.{field}", found),))
    await _hold(context, found, holder)
    return None


async def _keep_or_choose(context: Context, vm: VirtualMachine, card: Card, given: Range) -> Waiting | None:
    """Keep the address a card has, or give it a free one; two operators cannot give the same."""
    name, holder = card.switch.metadata.name, holder_of(vm, card)
    held = pick_held(vm, card, addresses_of(context, vm.metadata.uid))
    mine = next((found for found in held if ip_address(found.spec.address) in given.network), None)
    if mine is not None:
        if mine.spec.released_at is not None:
            await _hold(context, mine, holder)
        return None
    for address in preferred(vm, card, given)[:1]:
        if await _try(context, name, address, holder):
            return None
    place = (name, given.network.version)
    while True:
        last = context.last_addresses.get(place, given.first - 1)
        chosen = choose_address(given, last, lambda a: context.catalog.address(name, a) is not None)
        if chosen is None:
            return Waiting("SubnetExhausted", _exhausted(card, given))
        context.last_addresses[place] = int(chosen)
        if await _try(context, name, chosen, holder):
            return None


async def _try(context: Context, switch: str, address: IpAddress, holder: AddressHolder) -> bool:
    """Take an address if it is free; say whether the card has it now."""
    if context.catalog.address(switch, address) is not None:
        return False
    return is_same_card((await _create(context, switch, address, holder)).spec.holder, holder)


def _exhausted(card: Card, given: Range) -> str:
    return (
        f"{card.where}: all {given.size} addresses of {given.network} on VirtualSwitch {card.switch.metadata.name} are "
        "in use or cooling down: enlarge its subnet, or remove machines"
    )


async def _create(context: Context, switch: str, address: IpAddress, holder: AddressHolder) -> VMAddress:
    """Create the VMAddress of an address, or return the one that is there already, whoever's it is."""
    path, body = OUR_PATHS[ADDRESS], address_object(switch, address, holder)
    name = body["metadata"]["name"]
    try:
        made = await context.client.create(path.collection(), body)
        context.metrics.writes.labels(ADDRESS, "spec").inc()
    except ConflictError:  # made by an operator before this one, and not seen yet
        made = await context.client.get(path.object("", name))
    context.cache.put(ADDRESS, made)
    stored = context.cache.get(Key(ADDRESS, "", name)) or Stored(Key(ADDRESS, "", name), made)
    if not isinstance(stored.resource, VMAddress):
        raise ConflictError(f"VMAddress {name} is not one of this operator's: delete it")
    return stored.resource


async def _hold(context: Context, found: VMAddress, holder: AddressHolder) -> None:
    """Write that a card has an address that was given back."""
    stored = context.cache.get(Key(ADDRESS, "", found.metadata.name))
    if stored is not None:
        await write_spec(context, stored, {"holder": holder.to_json_dict(), "releasedAt": None})
