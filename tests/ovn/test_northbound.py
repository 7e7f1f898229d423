"""The operator's writing to a real northbound database: whatever fails, what shall be there is there in the end."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from group_plans import group, of, rule
from ovn_rig import OvnRig, eventually
from switched_network import SwitchedNetwork, Writer, card, overlay, subnet
from virtfleet_operator.core.network.group import compile_common, compile_group
from virtfleet_operator.core.network.names import COMMON_OWNER, group_owner, port_group_name, port_owner, switch_owner
from virtfleet_operator.core.network.port import compile_port
from virtfleet_operator.core.network.rows import Row
from virtfleet_operator.core.network.switch import compile_switch, forward_mac
from virtfleet_operator.core.network.topology import RateLimit
from virtfleet_operator.ovn.connection import OvnTls, use_tls
from virtfleet_operator.ovn.northbound import Stage

BACK_SECONDS = 20.0
IDLE_SECONDS = 2.0
STALL_SECONDS = 0.05
"""The event loop must not stand still for longer; 20 ms on an idle machine, and this one is shared."""

LAN = overlay("lan", subnet("10.1.0.0/24"))
WEB = group("web", ingress=[rule("TCP/80")])
ONE = card(1, "lan", "10.1.0.1", groups=(WEB.uid,))


@pytest.fixture
def network(rig: OvnRig) -> Iterator[SwitchedNetwork]:
    with SwitchedNetwork(rig) as made:
        yield made


def rows_of(rig: OvnRig, owner: str) -> list[str]:
    """Return the ports, groups and switches of an owner that are in the database."""
    tables = ("logical_switch", "logical_switch_port", "port_group", "acl", "qos", "dns", "dhcp_options")
    wanted = f'external_ids:virtfleet-owner="{owner}"'
    return [uuid for table in tables for uuid in rig.nbctl("--bare", "--columns=_uuid", "find", table, wanted).split()]


def transactions(rig: OvnRig) -> int:
    """Return how many transactions have ever been written to the northbound database."""
    log = rig.central.northbound.directory / "nb.db"
    return log.read_bytes().count(b"OVSDB JSON ")


def test_nothing_is_written_when_nothing_changes(rig: OvnRig, network: SwitchedNetwork) -> None:
    network.switch(LAN)
    network.group(WEB)
    network.plug(rig.nodes[0], ONE)
    network.plugged(ONE)
    before = transactions(rig)
    network.switch(LAN)
    network.group(WEB)
    network.port(ONE)
    network.writer.complete()
    time.sleep(IDLE_SECONDS)
    assert transactions(rig) == before
    network.group(group("web", ingress=[rule("TCP/81")]))
    network.settle()
    assert transactions(rig) > before  # so the count would have shown it


def test_what_others_change_is_repaired(rig: OvnRig, network: SwitchedNetwork) -> None:
    network.switch(LAN)
    network.group(WEB)
    network.port(ONE)
    network.settle()

    def dump() -> list[str]:
        tables = ("logical_switch", "logical_switch_port", "port_group", "acl", "dhcp_options")
        lines = [line for table in tables for line in rig.nbctl("--format=csv", "list", table).splitlines()]
        return sorted(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", line) for line in lines)

    name, before = port_group_name(WEB.uid), dump()
    for meddling in (
        ("lsp-set-port-security", ONE.id),
        ("clear", "port_group", name, "ports"),
        ("acl-del", name),
        ("pg-del", name),
        ("lsp-del", ONE.id),
        ("ls-del", "lan"),
        ("destroy", "dhcp_options", *rig.nbctl("--bare", "--columns=_uuid", "list", "dhcp_options").split()),
    ):
        rig.nbctl(*meddling)
        eventually(lambda: dump() == before, 5, f"repairing {' '.join(meddling)}")


def test_rows_of_others_are_left_alone(rig: OvnRig, network: SwitchedNetwork) -> None:
    rig.nbctl("ls-add", "foreign", "--", "lsp-add", "foreign", "theirs", "--", "pg-add", "their_group", "theirs")
    network.switch(LAN)
    network.group(WEB)
    network.port(ONE)
    network.settle()
    rig.nbctl("--type=port-group", "acl-add", "their_group", "to-lport", "5", "ip", "allow")
    rig.nbctl("add", "port_group", "their_group", "ports", rig.nbctl("get", "logical_switch_port", ONE.id, "_uuid"))
    network.writer.complete()
    network.port(replace(ONE, up=False))
    network.settle()
    time.sleep(0.3)
    assert len(rig.nbctl("get", "port_group", "their_group", "ports").split(",")) == 2
    assert "theirs" in rig.nbctl("lsp-list", "foreign")
    assert "allow" in rig.nbctl("--type=port-group", "acl-list", "their_group")


def test_after_a_restart_what_nobody_names_is_removed_and_not_before(rig: OvnRig, network: SwitchedNetwork) -> None:
    two = card(2, "lan", "10.1.0.2", groups=(WEB.uid,))
    network.switch(LAN)
    network.group(WEB)
    for plan in (ONE, two):
        network.port(plan)
    network.settle()
    network.writer.close()
    writer = network.writer = Writer(f"unix:{rig.central.northbound.socket}")
    writer.set(COMMON_OWNER, compile_common())
    writer.set(switch_owner("lan"), compile_switch(LAN))
    writer.set(port_owner(ONE.id), compile_port(replace(ONE, groups=()), LAN))
    writer.wait_written(COMMON_OWNER, switch_owner("lan"), port_owner(ONE.id))
    time.sleep(0.3)
    assert rows_of(rig, port_owner(two.id))
    assert rows_of(rig, group_owner(WEB.uid))
    writer.complete()
    eventually(lambda: not rows_of(rig, port_owner(two.id)) and not rows_of(rig, group_owner(WEB.uid)), 5, "removal")
    assert rows_of(rig, port_owner(ONE.id))


def test_a_row_that_is_refused_stops_no_other(rig: OvnRig, network: SwitchedNetwork) -> None:
    rig.nbctl("ls-add", "foreign", "--", "lsp-add", "foreign", ONE.id)  # the schema allows a name once
    others = [card(number, "lan", f"10.1.0.{number}") for number in range(2, 12)]
    network.switch(LAN)
    network.port(replace(ONE, groups=()))
    for plan in others:
        network.port(plan)
    network.writer.wait_written(*(port_owner(plan.id) for plan in others))
    eventually(lambda: network.writer.state(port_owner(ONE.id)).stage is Stage.REFUSED, 5, "the refusal")
    assert "constraint" in (network.writer.state(port_owner(ONE.id)).message or "")
    rig.nbctl("lsp-del", ONE.id)
    network.port(replace(ONE, groups=(), up=False))
    network.settle()


def test_a_card_waits_for_its_group_and_is_never_open(rig: OvnRig, network: SwitchedNetwork) -> None:
    network.switch(LAN)
    network.port(ONE)
    eventually(lambda: "waiting for Port_Group" in (network.writer.state(port_owner(ONE.id)).message or ""), 5, "it")
    assert not rows_of(rig, port_owner(ONE.id))
    network.group(WEB)
    network.settle()
    assert rows_of(rig, port_owner(ONE.id))


def test_what_is_waited_for_may_change_as_soon_as_it_comes(rig: OvnRig, network: SwitchedNetwork) -> None:
    """A busy operator hears of both at once."""
    network.switch(LAN)
    network.port(ONE)
    eventually(lambda: network.writer.state(port_owner(ONE.id)).message, 5, "waiting")
    name = port_group_name(WEB.uid)
    network.writer.loop.call_soon_threadsafe(time.sleep, 0.5)
    rig.nbctl("pg-add", name, "--", "set", "port_group", name, f"external_ids:virtfleet={name}",
              f'external_ids:virtfleet-owner="{group_owner(WEB.uid)}"')  # fmt: skip
    rig.nbctl("set", "port_group", name, "external_ids:note=changed")
    network.writer.wait_written(port_owner(ONE.id), seconds=5)
    network.group(WEB)
    network.settle()


def test_a_port_is_up_while_it_is_plugged_in(rig: OvnRig, network: SwitchedNetwork) -> None:
    named = replace(LAN, subnets=(replace(LAN.subnets[0], domain="lab.example"),))
    network.switch(named)
    plain = replace(ONE, groups=(), outbound=RateLimit(10_000_000, 20_000))
    probe = network.plug(rig.nodes[0], plain)
    network.plugged(plain)
    is_up = network.writer.northbound.is_up
    # Neither a limit nor a name that changes says anything of the cable.
    network.port(replace(plain, outbound=RateLimit(20_000_000, 20_000), host_name="other.default"))
    network.settle()
    network.port(replace(plain, outbound=None))
    network.settle()
    assert is_up(ONE.id)
    probe.node.run("ovs-vsctl", "del-port", "br-int", probe.device)
    eventually(lambda: not is_up(ONE.id), 5, "being unplugged")


def test_one_operator_writes_at_a_time(rig: OvnRig, network: SwitchedNetwork) -> None:
    network.switch(LAN)
    network.settle()
    successor = Writer(f"unix:{rig.central.northbound.socket}")
    try:
        successor.set(group_owner(WEB.uid), compile_group(WEB))
        eventually(lambda: "lock" in (successor.state(group_owner(WEB.uid)).message or ""), 5, "hearing of the lock")
        assert not rows_of(rig, group_owner(WEB.uid))
        network.writer.close()
        successor.wait_written(group_owner(WEB.uid))
        assert rows_of(rig, group_owner(WEB.uid))
    finally:
        successor.remove(group_owner(WEB.uid))
        successor.wait_written(group_owner(WEB.uid))
        successor.close()
        network.writer = Writer(f"unix:{rig.central.northbound.socket}")


def many(network: SwitchedNetwork, count: int) -> Callable[[int], None]:
    """Return what sets the rows of many cards, a little different each round."""

    def set_all(round_: int) -> None:
        for number in range(1, count + 1):
            address = f"10.1.{1 + round_ % 2}.{number}"
            network.port(card(number, "lan", address, groups=(WEB.uid,)))

    return set_all


@pytest.mark.parametrize("name", ["northbound", "southbound", "northd"])
def test_a_part_is_killed_while_it_is_written(rig: OvnRig, network: SwitchedNetwork, name: str) -> None:
    program = rig.central.northd if name == "northd" else getattr(rig.central, name).program
    network.switch(LAN)
    network.group(WEB)
    set_all = many(network, 40)
    for round_ in range(5):
        set_all(round_)
        if round_ == 1:
            pid = program.inner_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    network.writer.wait_written(*network.owners, seconds=BACK_SECONDS)
    eventually(rig.central.northbound.answers, BACK_SECONDS, "the northbound database")
    found = json.loads(rig.nbctl("--format=json", "--columns=addresses", "list", "logical_switch_port"))["data"]
    wanted = sorted(f"02:00:00:00:00:{number:02x} 10.1.1.{number}" for number in range(1, 41))
    assert sorted(row[0] for row in found if row[0] != forward_mac(LAN.name)) == wanted
    members = rig.nbctl("--bare", "--columns=ports", "list", "port_group", port_group_name(WEB.uid)).split()
    assert len(set(members)) == 40
    eventually(rig.central.southbound.answers, BACK_SECONDS, "the southbound database")
    bound = ("--bare", "--columns=logical_port", "list", "port_binding")
    with_the_nodes_own = 40 + 1
    eventually(lambda: len(rig.sbctl(*bound).split()) == with_the_nodes_own, BACK_SECONDS, "northd to have caught up")


def test_the_event_loop_never_stands_still(network: SwitchedNetwork) -> None:
    network.switch(LAN)
    network.group(group("web", peers=("default/web",), ingress=[rule(**{"from": [of("web")]})]))
    gaps: list[float] = []

    def tick(last: float) -> None:
        now = time.monotonic()
        gaps.append(now - last)
        network.writer.loop.call_later(0.001, tick, now)

    network.writer.loop.call_soon_threadsafe(tick, time.monotonic())
    many(network, 200)(0)
    network.settle()
    assert sorted(gaps)[-3] < STALL_SECONDS


def test_the_database_is_written_with_a_certificate(rig: OvnRig) -> None:
    pair = rig.trust.writer()
    use_tls(OvnTls(pair.key, pair.certificate, rig.trust.northbound.pair.certificate))
    writer = Writer(rig.central.northbound.remote)
    rows: list[Row] = compile_group(WEB)
    writer.set(group_owner(WEB.uid), rows)
    writer.wait_written(group_owner(WEB.uid))
    assert rows_of(rig, group_owner(WEB.uid))
    writer.remove(group_owner(WEB.uid))
    writer.wait_written(group_owner(WEB.uid))
    assert not rows_of(rig, group_owner(WEB.uid))
    writer.close()
