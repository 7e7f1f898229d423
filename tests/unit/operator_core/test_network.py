"""Cards, switches and groups: what they mean together, and what is said when they do not fit."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest

from network_world import OTHER, TENANT, UID, World
from virtfleet_api.report import InterfaceReport, MachineReport, NetworkReport, NodeReport, Phase, UplinkReport
from virtfleet_api.security_group import SecurityGroup
from virtfleet_api.virtual_machine_status import VirtualMachineStatus
from virtfleet_api.virtual_switch import VirtualSwitch
from virtfleet_api.vm_address import VMAddress
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.admission import Review, review_deletion, review_write
from virtfleet_operator.core.compile import compile_machine
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.events import network_events
from virtfleet_operator.core.network.addresses import Fate, has_port, judge
from virtfleet_operator.core.network.cards import find_cards, mac_of, port_id
from virtfleet_operator.core.network.nodes import compile_node_network
from virtfleet_operator.core.network.plans import build_group, build_port, build_switch
from virtfleet_operator.core.place import NodeView, Placed, candidate, need, place
from virtfleet_operator.core.summarise import NodeFacts, summarise_node
from virtfleet_operator.core.summarise.network import SwitchFacts, summarise_switch, switch_on_node
from virtfleet_operator.core.summarise.observed import observed
from virtfleet_operator.core.verdict import Invalid, Unschedulable, Waiting
from virtfleet_operator.core.writes import LOAD_INTERVAL, network_write_due

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture
def world() -> World:
    world = World()
    assert isinstance(world.add("VirtualSwitch", "tenant", TENANT), VirtualSwitch)
    assert isinstance(world.add("SecurityGroup", "web", {}, "shop"), SecurityGroup)
    return world


def said(found: object) -> str:
    assert isinstance(found, Invalid | Waiting), found
    return found.message


def test_a_card_takes_what_it_leaves_out_from_its_port_group(world: World) -> None:
    vm = world.machine("web-1", {"portGroup": "web"})
    found = find_cards(vm, world.catalog)
    assert isinstance(found, tuple)
    (card,) = found
    port = build_port(vm, card, (ip_address("10.1.0.7"),), world.catalog)
    assert (port.vlan, port.anti_spoof, port.groups) == (101, False, ("SecurityGroup-web",))
    sizing = resolve(vm, None)
    assert isinstance(sizing, Sizing)
    document = compile_machine(vm, sizing, world.catalog, None)
    assert not isinstance(document, Waiting | Invalid)
    (interface,) = document.hardware.interfaces
    assert (interface.port, interface.mac, interface.mtu) == (port.id, port.mac, 1442)
    assert interface.inbound is not None
    assert (interface.inbound.bits_per_second, interface.inbound.burst_bytes) == (100_000_000, 1_250_000)


def test_a_card_overrides_its_port_group(world: World) -> None:
    vm = world.machine("web-1", {"portGroup": "web", "securityGroups": [], "bandwidth": {}})
    (card,) = find_cards(vm, world.catalog)  # type: ignore[misc]
    assert card.groups("shop") == ()
    assert card.bandwidth.inbound is None


def test_identity_is_a_function_of_machine_and_card(world: World) -> None:
    vm, other = world.machine("web-1", {}), world.machine("web-2", {}, OTHER)
    nic = vm.spec.networks[0]
    assert mac_of(vm, nic) == mac_of(vm, nic) != mac_of(other, nic)
    assert port_id(UID, "eth0") != port_id(UID, "eth1")
    assert mac_of(vm, nic).startswith("52:54:")


@pytest.mark.parametrize(
    ("card", "text"),
    [
        ({"switch": "none"}, "spec.networks[0].switch: there is no VirtualSwitch 'none': create it or name another"),
        ({"portGroup": "db"}, "'db' is no port group of VirtualSwitch tenant: write one of its own (web, desk)"),
        ({"ipAddress": "10.2.0.7"}, "'10.2.0.7' is not in 10.1.0.0/24 on VirtualSwitch tenant"),
        ({"ipAddress": "10.1.0.1"}, "'10.1.0.1' is its router on VirtualSwitch tenant"),
        ({"ipv6Address": "fd00::7"}, "VirtualSwitch tenant has no subnet6"),
        ({"securityGroups": ["db"]}, "there is no SecurityGroup 'db' in namespace 'shop'"),
    ],
)
def test_what_does_not_fit_is_said_with_the_other_party(world: World, card: dict[str, Any], text: str) -> None:
    assert text in said(find_cards(world.machine("web-1", card), world.catalog))


def test_a_vlan_must_be_one_of_the_uplink(world: World) -> None:
    world.add("VirtualSwitch", "office", {"type": "Uplink", "uplink": {"interface": "bond0", "vlans": "100-199"}})
    vm = world.machine("web-1", {"switch": "office", "vlan": 200})
    assert '200 is not among the VLANs of VirtualSwitch office: write one of "100-199"' in said(
        find_cards(vm, world.catalog)
    )


def test_a_mac_address_of_another_machine_is_refused_with_its_name(world: World) -> None:
    world.machine("web-1", {"macAddress": "52:54:00:00:00:01"})
    vm = world.machine("web-2", {"macAddress": "52:54:00:00:00:01"}, OTHER)
    text = said(find_cards(vm, world.catalog))
    assert "'52:54:00:00:00:01' on VirtualSwitch tenant is that of VirtualMachine shop/web-1" in text


def manifest(resource: Any, kind: str) -> dict[str, Any]:
    found = resource.model_dump(mode="json", exclude_none=True, by_alias=True)
    return {**found, "kind": kind}


def refusal(review: Review) -> str:
    assert review.refusal is not None
    return review.refusal.message


def test_admission_names_the_holder_of_an_address(world: World) -> None:
    holder = {"namespace": "shop", "name": "web-1", "uid": UID, "interface": "eth0"}
    world.add("VMAddress", "tenant.10-1-0-7", {"switch": "tenant", "address": "10.1.0.7", "holder": holder})
    vm = world.machine("web-2", {"ipAddress": "10.1.0.7"}, OTHER)
    text = refusal(review_write(manifest(vm, "VirtualMachine"), None, world.catalog, NOW))
    assert "'10.1.0.7' on VirtualSwitch tenant is held by VirtualMachine shop/web-1 (eth0)" in text


def test_admission_refuses_overlapping_subnets_and_names_the_other_switch(world: World) -> None:
    other = world.add("VirtualSwitch", "other", {"subnet": {"cidr": "10.1.0.128/25"}})
    text = refusal(review_write(manifest(other, "VirtualSwitch"), None, world.catalog, NOW))
    assert "'10.1.0.128/25' overlaps 10.1.0.0/24 of VirtualSwitch tenant" in text


def test_what_is_in_use_cannot_be_deleted(world: World) -> None:
    world.machine("web-1", {"securityGroups": ["web"]})
    switch, group = world.catalog.virtual_switch("tenant"), world.catalog.security_group("shop", "web")
    text = refusal(review_deletion(manifest(switch, "VirtualSwitch"), world.catalog))
    assert "VirtualSwitch tenant is used by machine shop/web-1" in text
    text = refusal(review_deletion(manifest(group, "SecurityGroup"), world.catalog))
    assert "SecurityGroup web has members, machine shop/web-1" in text


def test_a_switch_keeps_what_its_cards_rely_on(world: World) -> None:
    old = world.add("VirtualSwitch", "tenant", TENANT, status={"ports": 3, "observedGeneration": 1})
    old = old.model_copy(update={"status": old.status.model_copy(update={"ports": 3})})
    smaller = manifest(old, "VirtualSwitch")
    smaller["spec"] = {"subnet": {"cidr": "10.1.0.0/25", "gateway": "10.1.0.1"}}
    text = refusal(review_write(smaller, manifest(old, "VirtualSwitch"), world.catalog, NOW))
    assert "must go on to hold 10.1.0.0/24 while 3 cards are plugged in" in text
    larger = {**smaller, "spec": {"subnet": {"cidr": "10.1.0.0/23", "gateway": "10.1.0.1"}}}
    assert review_write(larger, manifest(old, "VirtualSwitch"), world.catalog, NOW).refusal is None


def test_a_group_of_another_namespace_is_named_only_with_its_consent(world: World) -> None:
    rules = {"ingress": [{"from": [{"securityGroup": {"name": "db", "namespace": "data"}}]}]}
    api = world.add("SecurityGroup", "api", rules, "shop")
    assert (
        "'db' in namespace 'data' that is shared with this one: add 'shop' to its"
        in build_group(api, world.catalog)[1][0]
    )
    closed = world.add("SecurityGroup", "db", {"sharedWith": ["other"]}, "data")
    assert build_group(api, world.catalog)[0].peers == {}, closed
    world.cache.remove(next(iter(world.cache.find("SecurityGroup", "uid", "SecurityGroup-db"))).key, "SecurityGroup-db")
    world.add("SecurityGroup", "db", {"sharedWith": ["shop"]}, "data", uid="open")
    plan, absent = build_group(api, world.catalog)
    assert (plan.peers, absent) == ({("data", "db"): "open"}, ())


def test_a_card_whose_group_vanished_stays_closed(world: World) -> None:
    vm = world.machine("web-1", {"securityGroups": ["web"]})
    (card,) = find_cards(vm, world.catalog)  # type: ignore[misc]
    stored = next(iter(world.cache.all("SecurityGroup")))
    world.cache.remove(stored.key, stored.uid)
    port = build_port(vm, card, (), world.catalog)
    assert (port.groups, port.closed) == ((), True)


@pytest.mark.parametrize(
    ("spec", "status", "plugged"),
    [
        ({}, "Running", True),
        ({"runStrategy": "Halted"}, "Stopped", False),
        ({"runStrategy": "Halted"}, "Stopping", True),
        ({"runStrategy": "Manual", "powerState": "Stopped"}, "Stopped", False),
    ],
)
def test_a_dynamic_card_is_plugged_in_while_its_machine_runs(
    world: World,
    spec: dict[str, Any],
    status: str,
    plugged: bool,  # noqa: FBT001 -- a parameter of the table
) -> None:
    vm = world.machine("desk-1", {"portGroup": "desk"}, **spec)
    vm = vm.model_copy(update={"status": VirtualMachineStatus.model_validate({"printableStatus": status})})
    (card,) = find_cards(vm, world.catalog)  # type: ignore[misc]
    assert has_port(vm, card) is plugged
    static = world.machine("web-1", {}, OTHER, **spec)
    (card,) = find_cards(static, world.catalog)  # type: ignore[misc]
    assert has_port(static, card)


def test_an_address_is_released_cools_down_and_goes(world: World) -> None:
    holder = {"namespace": "shop", "name": "web-1", "uid": UID, "interface": "eth0"}
    spec = {"switch": "tenant", "address": "10.1.0.7", "holder": holder}
    held = world.add("VMAddress", "tenant.10-1-0-7", spec)
    assert isinstance(held, VMAddress)
    cool = timedelta(minutes=5)
    assert judge(held, wanted=True, cool_down=cool, now=NOW).fate is Fate.KEEP
    assert judge(held, wanted=False, cool_down=cool, now=NOW).fate is Fate.RELEASE
    left = held.model_copy(update={"spec": held.spec.model_copy(update={"released_at": NOW - timedelta(minutes=2)})})
    waiting = judge(left, wanted=False, cool_down=cool, now=NOW)
    assert (waiting.fate, waiting.after) == (Fate.WAIT, timedelta(minutes=3))
    assert judge(left, wanted=False, cool_down=cool, now=NOW + cool).fate is Fate.DELETE


def node(network: NetworkReport | None) -> NodeReport:
    return NodeReport(
        name="node-a",
        daemon_version="1",
        libvirt_version="9",
        qemu_version="7",
        hypervisor="qemu",
        architecture="x86_64",
        cpus=2,
        cpu_frequency_hz=10**9,
        memory_bytes=2**30,
        network=network,
    )


def test_a_switch_tells_which_nodes_carry_it(world: World) -> None:
    office = world.add("VirtualSwitch", "office", {"type": "Uplink", "uplink": {"interface": "bond0"}})
    broken = NetworkReport(connected=True, uplinks=(UplinkReport(interface="bond0", problem="bond0 does not exist."),))
    told = [
        switch_on_node(office, "node-a", report).message
        for report in (None, node(None), node(NetworkReport(connected=False)), node(broken))
    ]
    assert told == [
        "The node does not answer.",
        "The node has no Open vSwitch: install openvswitch-switch and ovn-host on it.",
        "ovn-controller is not connected to the southbound database.",
        "bond0 does not exist.",
    ]
    working = node(NetworkReport(connected=True, uplinks=(UplinkReport(interface="bond0"),)))
    assert switch_on_node(office, "node-a", working).ready
    late = SwitchFacts(ports=2, nodes=(switch_on_node(office, "node-a", node(broken)),))
    ready = summarise_switch(office, late, NOW).conditions[0]
    assert (ready.status, ready.reason, "node-a" in ready.message) == ("True", "NodesNotReady", True)


def test_a_machine_is_placed_where_its_switches_are(world: World) -> None:
    world.add("VirtualSwitch", "office", {"type": "Uplink", "uplink": {"interface": "bond0"}})
    vm = world.machine("web-1", {"switch": "office"})
    sizing = resolve(vm, None)
    assert isinstance(sizing, Sizing)
    asked = need(vm, sizing, {}, None, find_cards(vm, world.catalog))  # type: ignore[arg-type]
    made = VMNode.model_validate({"metadata": {"name": "node-a"}})

    def placed(network: NetworkReport | None) -> object:
        return place(asked, [candidate(NodeView(made, node(network), heard=True))])

    assert placed(None) == Unschedulable("0/1 nodes fit: 1 without network bond0")
    assert placed(NetworkReport(connected=True)) == Unschedulable("0/1 nodes fit: 1 without network bond0")
    assert placed(NetworkReport(connected=True, uplinks=(UplinkReport(interface="bond0"),))) == Placed("node-a")


def test_a_node_says_whether_cards_can_be_plugged_in() -> None:
    made = VMNode.model_validate({"metadata": {"name": "node-a"}})
    broken = UplinkReport(interface="bond0", problem="bond0 is part of br0 already.")

    def said(network: NetworkReport | None) -> tuple[str, str] | None:
        status = summarise_node(made, NodeFacts(report=node(network), heard=True), NOW)
        found = [c for c in status.conditions if c.type == "NetworkReady"]
        return (found[0].reason, found[0].message) if found else None

    assert said(None) is None
    assert said(NetworkReport(connected=False, problem="No bridge br-int."))[0] == "NotConnected"  # type: ignore[index]
    assert said(NetworkReport(connected=True, uplinks=(broken,))) == ("UplinkNotReady", "bond0 is part of br0 already.")
    told = said(NetworkReport(connected=True, datapath="netdev", tunnel_address="10.0.0.1"))
    assert told == ("Ready", "Cards can be plugged into switches (datapath netdev, tunnels end at 10.0.0.1).")


def test_the_counts_of_a_switch_are_written_at_intervals_and_the_rest_at_once(world: World) -> None:
    switch = world.catalog.virtual_switch("tenant")
    assert switch is not None
    before = summarise_switch(switch, SwitchFacts(ports=1, taken=1), NOW)
    switch = switch.model_copy(update={"status": before})
    more = summarise_switch(switch, SwitchFacts(ports=2, taken=2), NOW)
    assert (before.addresses_free, more.addresses_free) == (251, 250)
    assert network_write_due(before, before, NOW, NOW) is None
    assert network_write_due(before, more, NOW, NOW) == NOW + LOAD_INTERVAL
    lost = summarise_switch(switch, SwitchFacts(ports=2, way_out="there is no VirtualSwitch 'office'"), NOW)
    assert (lost.conditions[0].status, lost.conditions[0].reason) == ("False", "OutboundNotFound")
    broken = summarise_switch(switch, SwitchFacts(ports=2, problems=("x",)), NOW)
    assert network_write_due(before, broken, NOW, NOW) == NOW
    (event,) = network_events(before.conditions, broken.conditions)
    assert (event.type, event.reason) == ("Warning", "Invalid")
    assert network_events(before.conditions, more.conditions) == ()


def test_the_switch_has_the_vlans_of_its_port_groups_and_cards(world: World) -> None:
    switch = world.catalog.virtual_switch("tenant")
    assert switch is not None
    assert build_switch(switch, [7], ["node-a"], world.catalog).vlans == (None, 7, 101)


def test_a_status_shows_the_managed_address_first(world: World) -> None:
    vm = world.machine("web-1", {})
    (card,) = find_cards(vm, world.catalog)  # type: ignore[misc]
    port = build_port(vm, card, (ip_address("10.1.0.7"),), world.catalog)
    seen = InterfaceReport(name="eth0", mac=port.mac, ip_addresses=("10.0.0.9", "10.1.0.7", "fe80::1"))
    report = MachineReport(uid=UID, namespace="shop", name="web-1", phase=Phase.RUNNING, interfaces=(seen,))
    (shown,) = observed(report, VirtualMachineStatus(), (port,)).interfaces
    assert (shown.ip_addresses, shown.switch, shown.port) == (("10.1.0.7", "10.0.0.9", "fe80::1"), "tenant", port.id)


def test_nodes_are_told_of_every_physical_network_once_and_of_real_addresses_only(world: World) -> None:
    for name in ("office", "office-2"):
        world.add("VirtualSwitch", name, {"type": "Uplink", "uplink": {"interface": "bond0"}})
    told = compile_node_network(world.catalog.virtual_switches(), ["10.0.0.1", "node-a.local", "", "10.0.0.1"])
    assert [(u.network_name, u.interface) for u in told.uplinks] == [("uplink-bond0", "bond0")]
    assert told.peers == ("10.0.0.1",)
