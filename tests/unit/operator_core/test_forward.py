"""From which address nodes reach guests: never a card's, and none where there is none to take."""

from ipaddress import ip_address
from typing import Any

import pytest

from network_world import OTHER, TENANT, UID, World
from virtfleet_api.machine import ForwardPath, Machine
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_switch import Subnet, VirtualSwitch
from virtfleet_operator.core.compile import compile_machine
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.network.cards import find_cards
from virtfleet_operator.core.network.forward import find_forward, link_local, with_forwards
from virtfleet_operator.core.network.plans import build_port, build_switch
from virtfleet_operator.core.network.rows import Attachment, RowKey
from virtfleet_operator.core.network.subnets import parse_range
from virtfleet_operator.core.network.switch import compile_switch, forward_mac
from virtfleet_operator.core.verdict import Invalid

NODES_OWN = "10.1.0.254"
HELD = {"namespace": "shop", "name": "web-1", "uid": UID, "interface": "eth0"}


@pytest.fixture
def world() -> World:
    world = World()
    world.add("VirtualSwitch", "tenant", TENANT)
    return world


def path(world: World, vm: VirtualMachine, *addresses: str) -> ForwardPath | None:
    """Return how the first card of a machine is reached with these addresses."""
    found = find_cards(vm, world.catalog)
    assert isinstance(found, tuple), found
    card = found[0]
    port = build_port(vm, card, tuple(map(ip_address, addresses)), world.catalog)
    return find_forward(port, build_switch(card.switch, (), (), world.catalog))


@pytest.mark.parametrize(
    ("subnet", "forwarder"),
    [
        ({"cidr": "10.1.0.0/24", "gateway": "10.1.0.1"}, "10.1.0.254"),
        ({"cidr": "10.1.0.0/24", "gateway": "10.1.0.254"}, "10.1.0.253"),
        ({"cidr": "10.1.0.0/24"}, "10.1.0.253"),
        ({"cidr": "10.1.0.0/24", "gateway": "10.1.0.1", "reserved": ["10.1.0.200-10.1.0.254"]}, "10.1.0.199"),
        ({"cidr": "10.1.0.0/24", "reserved": ["10.1.0.250-10.1.0.253", "10.1.0.251"]}, "10.1.0.249"),
        ({"cidr": "10.1.0.0/28", "gateway": "10.1.0.1"}, "10.1.0.14"),
        ({"cidr": "10.1.0.0/29", "gateway": "10.1.0.1"}, None),
        ({"cidr": "10.1.0.0/24", "reserved": ["10.1.0.4-10.1.0.254"]}, None),
        ({"cidr": "fd00:1::/64"}, None),
    ],
)
def test_the_last_address_that_may_be_given_is_the_nodes(subnet: dict[str, Any], forwarder: str | None) -> None:
    given = parse_range(Subnet.model_validate(subnet))
    found = given.forwarder
    assert (None if found is None else str(ip_address(found))) == forwarder


def test_a_card_is_reached_by_its_managed_address(world: World) -> None:
    vm = world.machine("web-1", {"vlan": 7})
    found = path(world, vm, "10.1.0.7")
    assert found is not None
    assert found.to_json_dict() == {
        "port": "tenant.7/forward",
        "mac": forward_mac("tenant"),
        "source": "10.1.0.254/24",
        "target": "10.1.0.7",
    }
    assert ForwardPath.model_validate(found.to_json_dict()) == found


def test_a_card_with_ipv6_alone_is_reached_from_a_link_local_address(world: World) -> None:
    world.add("VirtualSwitch", "six", {"subnet6": {"cidr": "fd00:6::/64"}})
    found = path(world, world.machine("web-1", {"switch": "six"}), "fd00:6::7")
    assert found is not None
    assert (str(found.source), str(found.target)) == (f"{link_local(forward_mac('six'))}/64", "fd00:6::7")
    assert str(link_local("52:54:00:12:34:56")) == "fe80::5054:ff:fe12:3456"


def test_a_card_without_a_managed_address_cannot_be_reached(world: World) -> None:
    world.add("VirtualSwitch", "bare", {})
    assert path(world, world.machine("web-1", {"switch": "bare"})) is None


def test_the_port_of_the_nodes_is_on_every_vlan_and_sends_from_its_own_address_alone(world: World) -> None:
    switch = world.catalog.virtual_switch("tenant")
    assert switch is not None
    rows = {row.key.name: row for row in compile_switch(build_switch(switch, [7], (), world.catalog))}
    names = [name for name in rows if name.endswith("/forward")]
    assert names == ["tenant/forward", "tenant.7/forward", "tenant.101/forward"]
    for name in names:
        row, claim = rows[name], frozenset({f"{forward_mac('tenant')} {NODES_OWN}"})
        assert (row.columns["type"], row.columns["addresses"], row.columns["port_security"]) == (
            "localport",
            claim,
            claim,
        )
        assert Attachment(RowKey("Port_Group", "virtfleet_forwards"), "ports") in row.attached


def test_a_card_that_had_the_address_keeps_it_and_nodes_have_none(world: World) -> None:
    world.add("VMAddress", "tenant.10-1-0-254", {"switch": "tenant", "address": NODES_OWN, "holder": HELD})
    former, newer = world.machine("web-1", {"ipAddress": NODES_OWN}), world.machine("web-2", {}, OTHER)
    assert isinstance(find_cards(former, world.catalog), tuple)
    assert path(world, newer, "10.1.0.7") is None
    switch = world.catalog.virtual_switch("tenant")
    assert isinstance(switch, VirtualSwitch)
    rows = compile_switch(build_switch(switch, (), (), world.catalog))
    (row,) = [row for row in rows if row.key.name == "tenant/forward"]
    assert (row.columns["enabled"], row.columns["addresses"]) == (
        frozenset({False}),
        frozenset({forward_mac("tenant")}),
    )


def test_nobody_else_may_ask_for_it_and_reserved_sets_it_free(world: World) -> None:
    vm = world.machine("web-1", {"ipAddress": NODES_OWN})
    found = find_cards(vm, world.catalog)
    assert isinstance(found, Invalid)
    assert found.message == (
        "spec.networks[0].ipAddress: '10.1.0.254' is the one from which nodes reach guests"
        " (`kubectl vm port-forward`) on VirtualSwitch tenant: write another, or add it to the switch's reserved"
    )
    world.add("VirtualSwitch", "freed", {"subnet": {"cidr": "10.1.0.0/24", "reserved": ["10.1.0.253-10.1.0.254"]}})
    vm = world.machine("web-2", {"switch": "freed", "ipAddress": "10.1.0.253"}, OTHER)
    assert isinstance(find_cards(vm, world.catalog), tuple)


def test_the_document_says_it_of_the_card_that_is_meant(world: World) -> None:
    vm = world.machine("web-1", {})
    sizing = resolve(vm, None)
    assert isinstance(sizing, Sizing)
    document = compile_machine(vm, sizing, world.catalog, None)
    assert isinstance(document, Machine)
    found = path(world, vm, "10.1.0.7")
    told = with_forwards(document, {"eth0": found, "eth9": None})
    assert [card.forward for card in told.hardware.interfaces] == [found]
    assert Machine.model_validate_json(told.model_dump_json()) == told
    assert with_forwards(told, {}) == document
