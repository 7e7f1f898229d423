"""Open vSwitch, changed one transaction at a time until nothing differs any more."""

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtfleet_api.node_network import NodeNetwork, UplinkNetwork, uplink_network_name
from virtfleet_node.core.network import (
    DATAPATH,
    MAPPINGS,
    REMOTE,
    Bridge,
    Command,
    Device,
    Southbound,
    SwitchState,
    bridge_name,
    decide,
)

SOUTHBOUND = Southbound("ssl:10.0.0.1:6642", "/k", "/c", "/ca")
NAMES = ("eth1", "bond0", "int", "a-very-long-dev")
DEVICES = {name: Device() for name in NAMES}
FOREIGN = Bridge(frozenset({"br-ex", "eth9"}))

networks = st.lists(st.sampled_from(NAMES), unique=True).map(
    lambda names: NodeNetwork(
        uplinks=tuple(UplinkNetwork(network_name=uplink_network_name(n), interface=n) for n in names)
    )
)


def after(seen: SwitchState, commands: Iterable[Command]) -> SwitchState:
    """Return what Open vSwitch makes of commands."""
    for command in commands:
        match command:
            case ("add-br", name):
                assert name not in seen.bridges
                seen = replace(seen, bridges={**seen.bridges, name: Bridge(frozenset({name}))})
            case ("set", "Bridge", name, datapath, *marks):
                ids = dict(mark.removeprefix("external_ids:").split("=") for mark in marks)
                old = seen.bridges[name]
                new = replace(old, datapath=datapath.split("=")[1], external_ids={**old.external_ids, **ids})
                seen = replace(seen, bridges={**seen.bridges, name: new})
            case ("add-port", name, port):
                bridge = seen.bridges[name]
                seen = replace(seen, bridges={**seen.bridges, name: replace(bridge, ports=bridge.ports | {port})})
            case ("del-port", name, port):
                bridge = seen.bridges[name]
                seen = replace(seen, bridges={**seen.bridges, name: replace(bridge, ports=bridge.ports - {port})})
            case ("del-br", name):
                assert seen.bridges[name].is_ours
                seen = replace(seen, bridges={n: b for n, b in seen.bridges.items() if n != name})
            case ("set", "Open_vSwitch", ".", text):
                key, value = text.removeprefix("external_ids:").split("=", 1)
                seen = replace(seen, external_ids={**seen.external_ids, key: json.loads(value)})
            case ("remove", "Open_vSwitch", ".", "external_ids", key):
                seen = replace(seen, external_ids={k: v for k, v in seen.external_ids.items() if k != key})
            case ("set-ssl", *files):
                seen = replace(seen, ssl=tuple(files))
            case _:
                raise AssertionError(command)
    return seen


def apply(wanted: NodeNetwork | None, seen: SwitchState, southbound: Southbound | None = SOUTHBOUND) -> SwitchState:
    decision = decide(wanted, southbound, seen, DEVICES)
    return after(seen, (command for transaction in decision.transactions for command in transaction.commands))


@settings(max_examples=20)
@given(networks, networks, st.sampled_from(("system", "netdev")))
def test_one_pass_brings_any_network_to_any_other_and_leaves_foreign_bridges(
    first: NodeNetwork, second: NodeNetwork, datapath: str
) -> None:
    ids = {DATAPATH: datapath, MAPPINGS: "physnet1:br-ex", "system-id": "node-a"}
    start = SwitchState(ids, bridges={"br-ex": FOREIGN, "br-int": Bridge()})
    seen = apply(second, apply(first, start))
    assert decide(second, SOUTHBOUND, seen, DEVICES).transactions == ()
    interfaces = [uplink.interface for uplink in second.uplinks]
    assert seen.bridges.keys() == {"br-ex", "br-int", *map(bridge_name, interfaces)}
    assert seen.bridges["br-ex"] == FOREIGN
    for name in interfaces:
        assert seen.bridges[bridge_name(name)].ports == {bridge_name(name), name}
        assert seen.bridges[bridge_name(name)].datapath == datapath
    mapped = [f"{uplink_network_name(name)}:{bridge_name(name)}" for name in interfaces]
    assert seen.external_ids[MAPPINGS] == ",".join(["physnet1:br-ex", *mapped])
    assert (seen.external_ids[REMOTE], seen.ssl) == ("ssl:10.0.0.1:6642", ("/k", "/c", "/ca"))


def test_as_long_as_nothing_is_wanted_uplinks_stay() -> None:
    seen = apply(NodeNetwork(uplinks=(UplinkNetwork(network_name="uplink-eth1", interface="eth1"),)), SwitchState())
    assert apply(None, seen) == seen


@pytest.mark.parametrize("interface", NAMES)
def test_names_of_bridges_fit_and_are_nobody_elses(interface: str) -> None:
    assert len(bridge_name(interface)) <= 15
    assert bridge_name(interface) != "br-int"
    assert [bridge_name(name) for name in NAMES].count(bridge_name(interface)) == 1


@pytest.mark.parametrize(
    ("device", "bridges", "said"),
    [
        (None, {}, "no network device"),
        (Device(), {"br-eth1": Bridge()}, "has not made"),
        (Device(), {"br-ex": Bridge(frozenset({"eth1"}))}, "part of br-ex"),
        (Device(master="bond0"), {}, "part of bond0"),
        (Device(addresses=("10.0.0.1/24",)), {}, "(10.0.0.1/24) and would be cut off"),
    ],
)
def test_a_device_that_cannot_be_an_uplink_is_left_alone(
    device: Device | None, bridges: dict[str, Bridge], said: str
) -> None:
    wanted = NodeNetwork(uplinks=(UplinkNetwork(network_name="uplink-eth1", interface="eth1"),))
    decision = decide(wanted, None, SwitchState(bridges=bridges), {"eth1": device} if device else {})
    assert decision.transactions == ()
    assert said in decision.uplinks[0].problem


def test_strange_ports_leave_the_bridge_of_an_uplink_and_ovns_stay() -> None:
    ours = Bridge(frozenset({"br-eth1", "eth1", "other", "patch-x-to-br-int"}), {"virtfleet": "uplink"}, "system")
    wanted = NodeNetwork(uplinks=(UplinkNetwork(network_name="uplink-eth1", interface="eth1"),))
    seen = apply(wanted, SwitchState(bridges={"br-eth1": ours}))
    assert seen.bridges["br-eth1"].ports == {"br-eth1", "eth1", "patch-x-to-br-int"}


def test_a_device_that_is_off_is_switched_on() -> None:
    wanted = NodeNetwork(uplinks=(UplinkNetwork(network_name="uplink-eth1", interface="eth1"),))
    assert decide(wanted, None, SwitchState(), {"eth1": Device(is_up=False)}).down == ("eth1",)
