"""The cards of a machine that are plugged into switches: what they name is found, and defaults are applied."""

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from virtfleet_api.bandwidth import Bandwidth
from virtfleet_api.network import Network
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_switch import (
    PortBinding,
    PortGroup,
    Subnet,
    SwitchType,
    VirtualSwitch,
    parse_vlans,
)
from virtfleet_operator.core.catalog import Catalog
from virtfleet_operator.core.network.subnets import parse_range
from virtfleet_operator.core.validate.security_group import group_problems
from virtfleet_operator.core.validate.virtual_switch import switch_problems
from virtfleet_operator.core.verdict import Invalid, Waiting, quote

_MAC_PREFIX: Final = "52:54"  # the range that QEMU and libvirt give to guests begins so, and is locally administered
_MAC_BYTES: Final = 4  # 32 bits: among 5,000 cards two are the same once in 300 fleets, and that is told


@dataclass(frozen=True)
class Card:
    """A network card on a switch."""

    index: int
    """Place in spec.networks."""
    nic: Network
    switch: VirtualSwitch
    group: PortGroup | None

    @property
    def name(self) -> str:
        """Return its name in the machine."""
        return self.nic.name

    @property
    def where(self) -> str:
        """Return its place as users know it."""
        return f"spec.networks[{self.index}]"

    @property
    def vlan(self) -> int | None:
        """Return its VLAN, None for the untagged network."""
        return self.nic.vlan or (self.group.vlan if self.group else None)

    @property
    def dynamic(self) -> bool:
        """Tell whether it has its port and addresses only while the machine runs."""
        return self.group is not None and self.group.binding is PortBinding.DYNAMIC

    @property
    def anti_spoof(self) -> bool:
        """Tell whether what it sends is checked."""
        chosen = self.group.anti_spoof if self.group else None
        return self.switch.spec.anti_spoof if chosen is None else chosen

    @property
    def bandwidth(self) -> Bandwidth:
        """Return its limits."""
        chosen = self.nic.bandwidth or (self.group.bandwidth if self.group else None)
        return chosen or Bandwidth()

    @property
    def mtu(self) -> int:
        """Return the MTU its guest shall use."""
        return mtu_of(self.switch)

    def groups(self, namespace: str) -> tuple[tuple[str, str], ...]:
        """Return (namespace, name) of its security groups."""
        if self.nic.security_groups is not None:
            return tuple((namespace, name) for name in self.nic.security_groups)
        return tuple((g.namespace, g.name) for g in self.group.security_groups) if self.group else ()

    @property
    def families(self) -> tuple[tuple[Subnet, str | None, str], ...]:
        """Return each subnet of the switch with the address that is asked for, and the field that asks."""
        spec, nic = self.switch.spec, self.nic
        found = ((spec.subnet, nic.ip_address, "ipAddress"), (spec.subnet6, nic.ipv6_address, "ipv6Address"))
        return tuple((subnet, asked, field) for subnet, asked, field in found if subnet is not None)


def mtu_of(switch: VirtualSwitch) -> int:
    """Return the MTU of a switch: an Ethernet frame on an Uplink, less Geneve's headers over IPv4 on an Overlay."""
    return switch.spec.mtu or (1442 if switch.spec.type is SwitchType.OVERLAY else 1500)


def port_id(uid: str, nic: str) -> str:
    """Return the name of a card's logical switch port: the same for the machine's whole life."""
    return str(uuid.uuid5(uuid.UUID(uid), nic))


def derive_port_mac(uid: str, nic: str) -> str:
    """Return the MAC address of a card on a switch that names none: the same for the machine's whole life."""
    digest = hashlib.sha256(f"{uid}/{nic}/port".encode()).digest()
    return ":".join([_MAC_PREFIX, *(f"{byte:02x}" for byte in digest[:_MAC_BYTES])])


def mac_of(vm: VirtualMachine, nic: Network) -> str:
    """Return the MAC address of a card on a switch."""
    return nic.mac_address.lower() if nic.mac_address else derive_port_mac(vm.metadata.uid, nic.name)


def switched(vm: VirtualMachine) -> Iterator[tuple[int, Network, str]]:
    """Yield the cards on switches: place in spec.networks, card, switch."""
    for index, nic in enumerate(vm.spec.networks):
        if nic.switch is not None:
            yield index, nic, nic.switch


def find_cards(vm: VirtualMachine, catalog: Catalog) -> tuple[Card, ...] | Waiting | Invalid:
    """Return the cards of a machine that are on switches, or what is wrong with them."""
    cards: list[Card] = []
    for index, nic, name in switched(vm):
        switch = catalog.virtual_switch(name)
        where = f"spec.networks[{index}]"
        if switch is None:
            absent = f"there is no VirtualSwitch {quote(name)}: create it or name another"
            return Waiting("SwitchNotFound", f"{where}.switch: {absent}")
        if switch_problems(switch):
            bad = f"the VirtualSwitch {quote(name)} is not valid: see its condition Ready, or name another"
            return Waiting("SwitchInvalid", f"{where}.switch: {bad}")
        cards.append(Card(index, nic, switch, _group(switch, nic)))
    problems = tuple(problem for card in cards for problem in card_problems(vm, card, catalog))
    if problems:
        return Invalid(problems)
    return _missing_group(vm, cards, catalog) or tuple(cards)


def plugged(vm: VirtualMachine, catalog: Catalog) -> tuple[Card, ...]:
    """Return the cards whose switch is there and valid, whatever else is wrong: what runs stays connected."""
    found = ((index, nic, catalog.virtual_switch(name)) for index, nic, name in switched(vm))
    cards = (Card(index, nic, switch, _group(switch, nic)) for index, nic, switch in found if switch)
    return tuple(card for card in cards if not switch_problems(card.switch))


def network_reference_problems(vm: VirtualMachine, catalog: Catalog) -> tuple[str, ...]:
    """Check what a machine says of the switches that are there already; for admission, where nothing is waited for."""
    return tuple(problem for card in plugged(vm, catalog) for problem in card_problems(vm, card, catalog))


def card_problems(vm: VirtualMachine, card: Card, catalog: Catalog) -> Iterator[str]:
    """Check a card against its switch, and its addresses against those of others."""
    nic, switch = card.nic, card.switch
    if nic.port_group is not None and card.group is None:
        known = ", ".join(group.name for group in switch.spec.port_groups[:8]) or "it has none"
        named = f"{quote(nic.port_group)} is no port group of VirtualSwitch {switch.metadata.name}"
        yield f"{card.where}.portGroup: {named}: write one of its own ({known}), or leave it out"
    yield from _vlan_problems(card)
    yield from _address_problems(vm, card, catalog)
    mac = mac_of(vm, nic)
    for user in catalog.mac_users(switch.metadata.name, mac):
        if user != (vm.metadata.namespace, vm.metadata.name):
            other = f"VirtualMachine {user[0]}/{user[1]}"
            yield (
                f"{card.where}.macAddress: {quote(mac)} on VirtualSwitch {switch.metadata.name} is that of {other}: "
                "write another address"
            )
            break


def _vlan_problems(card: Card) -> Iterator[str]:
    uplink = card.switch.spec.uplink
    if uplink is None or card.nic.vlan is None or card.nic.vlan in parse_vlans(uplink.vlans):
        return
    name = card.switch.metadata.name
    allowed = f'one of "{uplink.vlans}"' if uplink.vlans else "none: it has no VLANs in its spec.uplink.vlans"
    yield f"{card.where}.vlan: {card.nic.vlan} is not among the VLANs of VirtualSwitch {name}: write {allowed}"


def _address_problems(vm: VirtualMachine, card: Card, catalog: Catalog) -> Iterator[str]:
    name = card.switch.metadata.name
    for subnet, asked, field in card.families:
        given = parse_range(subnet)
        if asked is not None and int(ip_address(asked)) == given.forwarder and not _has(vm, card, catalog, asked):
            taken = f"is the one from which nodes reach guests (`kubectl vm port-forward`) on VirtualSwitch {name}"
            yield f"{card.where}.{field}: {quote(asked)} {taken}: write another, or add it to the switch's reserved"
        if asked is None or given.holds(ip_address(asked)):
            continue
        what = "is its router" if ip_address(asked) == given.router else f"is not in {subnet.cidr}"
        yield (
            f"{card.where}.{field}: {quote(asked)} {what} on VirtualSwitch {name}: "
            "write a host address of the subnet, or leave it out to get one"
        )
    managed = {field for _, _, field in card.families}
    for field, asked in (("ipAddress", card.nic.ip_address), ("ipv6Address", card.nic.ipv6_address)):
        if asked is not None and field not in managed:
            part = "subnet" if field == "ipAddress" else "subnet6"
            yield f"{card.where}.{field}: VirtualSwitch {name} has no {part}: leave it out, or add one to the switch"


def _has(vm: VirtualMachine, card: Card, catalog: Catalog, address: str) -> bool:
    """Tell whether a card had the address before nodes came to want it."""
    found = catalog.address(card.switch.metadata.name, ip_address(address))
    return found is not None and (found.spec.holder.uid, found.spec.holder.interface) == (vm.metadata.uid, card.name)


def _missing_group(vm: VirtualMachine, cards: list[Card], catalog: Catalog) -> Waiting | None:
    """Wait for a security group that is not there: a card without its rules would be open."""
    for card in cards:
        for namespace, name in card.groups(vm.metadata.namespace):
            group = catalog.security_group(namespace, name)
            if group is None:
                absent = f"there is no SecurityGroup {quote(name)} in namespace {quote(namespace)}"
                return Waiting("SecurityGroupNotFound", f"{card.where}: {absent}: create it or name another")
            if group_problems(group):
                bad = f"the SecurityGroup {quote(name)} is not valid: see its condition Ready"
                return Waiting("SecurityGroupInvalid", f"{card.where}: {bad}")
    return None


def _group(switch: VirtualSwitch, nic: Network) -> PortGroup | None:
    return next((group for group in switch.spec.port_groups if group.name == nic.port_group), None)
