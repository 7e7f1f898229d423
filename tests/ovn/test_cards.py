"""Guests on a switch of two nodes: what daemons, Open vSwitch, OVN and the guests make of their network cards."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from lxml import etree

from captures import capture, restore
from guest_shell import begin, finish, run
from machine_rig import Rig, new_machine
from network_namespace import tcpdump
from ovn_rig import OvnRig, Probe, eventually
from virtfleet_api.machine import InterfaceLimit, Machine, MachineInterface
from virtfleet_api.network import LinkState
from virtfleet_api.node_network import NodeNetwork, UplinkNetwork, uplink_network_name
from virtfleet_dev.cluster import leftovers
from virtfleet_node.agent import switch
from virtfleet_node.core.network import Southbound

pytestmark = pytest.mark.asyncio(loop_scope="session")

MTU = 1442
PORTS = tuple(f"dddddddd-0000-4000-8000-00000000000{number}" for number in range(6))
MEGABIT = 1_000_000


def mac(number: int) -> str:
    return f"52:54:00:00:01:0{number}"


def address(number: int) -> str:
    return f"10.30.0.{number}"


def card(number: int, name: str = "eth0", **more: object) -> MachineInterface:
    fields: dict[str, object] = {"name": name, "mac": mac(number), "port": PORTS[number], "mtu": MTU, **more}
    return MachineInterface.model_validate(fields)


def limited(megabits: int | None) -> InterfaceLimit | None:
    return InterfaceLimit(bits_per_second=megabits * MEGABIT, burst_bytes=64 << 10) if megabits else None


@dataclass
class Pair:
    """A guest on each of two nodes, plugged into one switch as ports 1 and 2."""

    ovn: OvnRig
    rigs: tuple[Rig, Rig]
    machines: list[Machine]

    async def put(self, number: int, *cards: MachineInterface) -> None:
        """Change the cards of a guest (0 or 1)."""
        hardware = self.machines[number].hardware.model_copy(update={"interfaces": cards})
        self.machines[number] = await self.rigs[number].put(self.machines[number], hardware=hardware)

    async def run(self, number: int, command: str, seconds: float = 60) -> str:
        return await run(self.rigs[number], self.machines[number], command, seconds)

    async def until(self, number: int, condition: str) -> None:
        """Wait until a shell condition holds in a guest."""
        await self.run(number, f"until {condition}; do sleep 0.1; done")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(scratch: Path) -> AsyncIterator[Pair]:
    patch = pytest.MonkeyPatch()
    patch.setattr(switch, "EVERY_SECONDS", 0.5)
    ovn, rigs = OvnRig(scratch / "ovn-guests", libvirt=True), []
    try:
        await asyncio.to_thread(ovn.up)
        make_network(ovn)
        for node in ovn.nodes:
            pair, authority = ovn.trust.chassis(node.name), ovn.trust.southbound.pair.certificate
            files = (str(pair.key), str(pair.certificate), str(authority))
            rigs.append(Rig(node, Southbound(ovn.central.southbound.remote, *files)))
            await rigs[-1].start()
        machines = [
            await rigs[0].put(new_machine(cores=2, interfaces=(card(1),), grace_period_seconds=0)),
            await rigs[1].put(new_machine(interfaces=(card(2),), grace_period_seconds=0)),
        ]
        for rig, machine in zip(rigs, machines, strict=True):
            await rig.until_console(machine, "/ # ")
        yield Pair(ovn, (rigs[0], rigs[1]), machines)
    finally:
        for rig in rigs:
            await rig.tidy()
            await rig.stop()
        patch.undo()
        await asyncio.to_thread(ovn.down)
    assert leftovers(ovn.fabric.id) == ()


def make_network(ovn: OvnRig) -> None:
    """Make the switch "net" with DHCP and its ports, as an operator does."""
    ovn.nbctl("ls-add", "net")
    ovn.nbctl("dhcp-options-create", "10.30.0.0/24")
    dhcp = ovn.nbctl("--bare", "--columns=_uuid", "list", "dhcp_options")
    options = ("server_id=10.30.0.254", "server_mac=0a:00:00:00:00:fe", "lease_time=3600", f"mtu={MTU}")
    ovn.nbctl("dhcp-options-set-options", dhcp, *options)
    for number, port in enumerate(PORTS):
        claim = f"{mac(number)} {address(number)}"
        ovn.nbctl("lsp-add", "net", port, "--", "lsp-set-addresses", port, claim)
        ovn.nbctl("lsp-set-port-security", port, claim, "--", "lsp-set-dhcpv4-options", port, dhcp)


async def test_guests_get_the_addresses_of_their_ports_and_a_queue_for_each_vcpu(pair: Pair) -> None:
    for number in (0, 1):
        rig, machine = pair.rigs[number], pair.machines[number]
        wanted = (address(number + 1),)
        await rig.reports.until(
            lambda rig=rig, machine=machine, wanted=wanted: (
                (r := rig.last(machine)) and r.interfaces[0].ip_addresses == wanted
            ),
            30,
            "the address in the report",
        )
        report = rig.last(machine)
        assert report is not None
        assert (report.interfaces[0].port, report.reason) == (PORTS[number + 1], "")
    await pair.run(0, "printf '#!/bin/sh\\necho $1 $ip $mtu >>/tmp/lease' >/tmp/script; chmod +x /tmp/script")
    lease = "udhcpc -i eth0 -n -q -O mtu -s /tmp/script >/dev/null 2>&1; grep bound /tmp/lease"
    assert await pair.run(0, lease) == f"bound {address(1)} {MTU}"
    queues = "cat /sys/class/net/eth0/mtu; ls -d /sys/class/net/eth0/queues/rx-* | wc -l"
    assert (await pair.run(0, queues)).split() == [str(MTU), "2"]
    assert (await pair.run(1, queues)).split() == [str(MTU), "1"]


async def test_guests_of_two_nodes_reach_each_other_and_full_packets_fit_the_tunnel(pair: Pair) -> None:
    await pair.until(0, f"ping -c 1 -W 1 {address(2)} >/dev/null")
    payload = MTU - 28
    underlay, device = pair.ovn.fabric.underlay_network
    with tcpdump(underlay, device, "udp port 6081 or (ip[6:2] & 0x3fff != 0)") as lines:
        assert await pair.run(0, f"ping -c 3 -W 2 -s {payload} {address(2)} | grep -c 'seq='") == "3"
    text = "\n".join(lines)
    assert "ICMP echo request, id" in text
    assert f"length {payload + 8}" in text
    assert "[DF]" in text
    assert "frag" not in text.replace("flags", "")
    word = await begin(pair.rigs[1], pair.machines[1], "nc -l -p 7000 | md5sum | cut -c 1-32")
    made = "head -c 3000000 /dev/urandom >/tmp/sent; md5sum /tmp/sent | cut -c 1-32"
    digest = await pair.run(0, made)
    await pair.run(0, f"nc {address(2)} 7000 </tmp/sent")
    assert await finish(pair.rigs[1], pair.machines[1], word) == digest


async def test_what_goes_to_a_guest_is_limited_live_and_set_free_again(pair: Pair) -> None:
    sender = pair.ovn.probe(pair.ovn.nodes[1], PORTS[3], mac(3), f"{address(3)}/24")
    eventually(lambda: sender.pings(address(2)), 10, "the first ping")
    rates = []
    for megabits in (10, 20, None):
        await pair.put(1, card(2, inbound=limited(megabits)))
        await pair.rigs[1].reports.until(lambda m=megabits: max_rate(pair) == m, 10, "the limit in Open vSwitch")
        rates.append(await received_rate(pair, sender))
    sender.unplug()
    (traffic,) = (await pair.rigs[1].daemon.list_interfaces(pair.machines[1].uid)).items
    seen = "cat /sys/class/net/eth0/statistics/rx_bytes /sys/class/net/eth0/statistics/tx_bytes"
    received, sent = map(int, (await pair.run(1, seen)).split())
    assert traffic.received_bytes == pytest.approx(received, rel=0.05)
    assert traffic.sent_bytes == pytest.approx(sent, rel=0.05)
    assert rates[0] == pytest.approx(10, rel=0.1)
    assert rates[1] == pytest.approx(20, rel=0.1)
    assert rates[2] > 25


def max_rate(pair: Pair) -> int | None:
    """Return the limit that Open vSwitch applies, in Mbit/s."""
    found = pair.ovn.nodes[1].run("ovs-vsctl", "--bare", "--columns=other_config", "list", "queue")
    rates = [word.removeprefix("max-rate=") for word in found.split() if word.startswith("max-rate=")]
    return int(rates[0]) // MEGABIT if rates else None


async def received_rate(pair: Pair, sender: Probe) -> float:
    """Return what the guest of the second node receives while it is sent much more, in Mbit/s."""
    flooding = threading.Event()
    flooding.set()
    thread = threading.Thread(target=flood, args=(sender, flooding))
    thread.start()
    look = "cat /sys/class/net/eth0/statistics/rx_bytes; cut -d ' ' -f 1 /proc/uptime"
    try:
        numbers = (await pair.run(1, f"sleep 0.7; {look}; sleep 2; {look}")).split()
    finally:
        flooding.clear()
        thread.join()
    before, then, after, now = map(float, numbers)
    return (after - before) * 8 / (now - then) / MEGABIT


def flood(sender: Probe, flooding: threading.Event) -> None:
    """Send 40 Mbit/s of UDP."""
    with sender.udp() as source:
        start, sent = time.monotonic(), 0
        while flooding.is_set():
            source.sendto(bytes(1400), (address(2), 9))
            sent += 1
            time.sleep(max(0.0, start + sent * 1442 * 8 / (40 * MEGABIT) - time.monotonic()))


async def test_a_card_is_plugged_in_and_pulled_out_under_a_running_guest(pair: Pair) -> None:
    await pair.put(0, card(1), card(4, "eth1"))
    rig = pair.rigs[0]
    await rig.reports.until(
        lambda: (r := rig.last(pair.machines[0])) and [i.ip_addresses for i in r.interfaces][1:] == [(address(4),)],
        30,
        "the second card's address",
    )
    assert pair.ovn.nbctl("lsp-get-up", PORTS[4]) == "up"

    await pair.put(0, card(1), card(4, "eth1", state=LinkState.DOWN))
    await pair.until(0, "[ $(cat /sys/class/net/eth1/carrier) = 0 ]")
    await pair.put(0, card(1), card(4, "eth1"))
    await pair.until(0, "[ $(cat /sys/class/net/eth1/carrier) = 1 ]")

    await pair.put(0, card(1))
    await pair.until(0, "[ ! -e /sys/class/net/eth1 ]")
    eventually(lambda: pair.ovn.nbctl("lsp-get-up", PORTS[4]) == "down", 10, "the port going down")
    report = rig.last(pair.machines[0])
    assert report is not None
    assert (report.restart_required, report.held_interfaces) == ((), ())


async def test_a_guest_from_a_snapshot_has_its_own_card_and_sends_nothing_by_the_other(pair: Pair) -> None:
    rig, node = pair.rigs[0], pair.ovn.nodes[1]
    source = await rig.put(new_machine(cores=2, interfaces=(card(3),), grace_period_seconds=0))
    asks = f"until ping -c 1 -W 1 {address(2)} >/dev/null; do sleep 0.1; done; echo yes"
    assert await run(rig, source, asks) == "yes"
    await rig.type(source, f"(while :; do arping -c 1 -w 1 -I eth0 {address(2)}; done) >/dev/null 2>&1 &")
    snapshot = await capture(rig, source)
    await rig.remove(source)

    xml = etree.fromstring(pair.rigs[1].domain(pair.machines[1]).XMLDesc())
    device = xml.find("devices/interface/target").get("dev")
    copy = new_machine(cores=2, interfaces=(card(5),), grace_period_seconds=0, restore=restore(snapshot))
    # OVN itself answers who asks for the source's address, in its name; the guest only asks.
    asked = f"ether src {mac(3)} and not arp[6:2] = 2"
    with tcpdump(node.namespace, device, f"({asked}) or ether src {mac(5)}") as lines:
        await rig.put(copy)
        wanted = (address(5),)
        await rig.reports.until(
            lambda: (r := rig.last(copy)) and r.interfaces and r.interfaces[0].ip_addresses == wanted, 60, "its address"
        )
        await rig.type(copy, f"ping -c 2 -W 2 {address(2)} >/dev/null; echo PING$((0))ED", 0)
        await rig.until_console(copy, "PING0ED")
    report = rig.last(copy)
    assert report is not None
    assert report.restore is not None
    assert (report.restore.warm, report.restore.message, report.restart_required) == (True, "", ())
    seen = "\n".join(lines)
    assert f"{mac(5)} > " in seen
    assert f"{mac(3)} > " not in seen
    assert [card.get("type") for card in etree.fromstring(rig.domain(copy).XMLDesc()).iter("interface")] == ["bridge"]
    await rig.remove(copy)


async def test_uplinks_carry_vlans_and_come_back_and_go(pair: Pair) -> None:
    wanted = NodeNetwork(uplinks=(uplink("x0"), uplink("eth9"), uplink("eth0"), uplink("u0")))
    for rig in pair.rigs:
        report = await rig.switch.put(wanted)
        assert report.connected
        assert report.datapath == "netdev"
        assert report.tunnel_address == rig.node.fabric.underlay_address(rig.node.number)
        problems = {up.interface: up.problem for up in report.uplinks}
        assert problems["x0"] == ""
        assert "no network device eth9" in problems["eth9"]
        assert "would be cut off" in problems["eth0"]
        assert "u0 is part of br-phy" in problems["u0"]
    make_lan(pair.ovn)
    one, two = (
        pair.ovn.probe(node, f"lan{number}", mac(number), f"10.40.0.{number}/24")
        for number, node in enumerate(pair.ovn.nodes, start=7)
    )
    eventually(lambda: one.pings("10.40.0.8"), 15, "the first ping")
    wire, device = pair.ovn.fabric.physical_network
    with tcpdump(wire, device, "vlan 100 and icmp") as lines:
        assert two.pings("10.40.0.7")
    assert any("vlan 100" in line for line in lines)

    node, bridges = pair.ovn.nodes[0], {"br-int", "br-phy", "br-x0"}
    node.run("ovs-vsctl", "--timeout=20", "del-br", "br-x0", "--", "remove", "open", ".", "external_ids", "ovn-remote")
    assert set(node.run("ovs-vsctl", "list-br").split()) == bridges - {"br-x0"}
    await asyncio.to_thread(eventually, lambda: one.pings("10.40.0.8"), 15, "the uplink coming back")

    for rig in pair.rigs:
        report = await rig.switch.put(NodeNetwork())
        assert (report.uplinks, report.problem) == ((), "")
    assert set(node.run("ovs-vsctl", "list-br").split()) == bridges - {"br-x0"}
    with tcpdump(wire, device, "vlan 100") as lines:
        one.pings("10.40.0.8")
    assert "".join(lines) == ""


def uplink(interface: str) -> UplinkNetwork:
    return UplinkNetwork(network_name=uplink_network_name(interface), interface=interface)


def make_lan(ovn: OvnRig) -> None:
    """Make the switch "lan" on VLAN 100 of the uplinks."""
    ovn.nbctl("ls-add", "lan", "--", "lsp-add", "lan", "lan-uplink", "--", "lsp-set-type", "lan-uplink", "localnet")
    ovn.nbctl("lsp-set-addresses", "lan-uplink", "unknown", "--", "set", "logical_switch_port", "lan-uplink", "tag=100")
    ovn.nbctl("lsp-set-options", "lan-uplink", f"network_name={uplink_network_name('x0')}")
    for number in (7, 8):
        ovn.nbctl("lsp-add", "lan", f"lan{number}", "--", "lsp-set-addresses", f"lan{number}", mac(number))


async def test_a_node_puts_its_network_right_when_open_vswitch_has_started_again(pair: Pair) -> None:
    await pair.rigs[0].switch.put(NodeNetwork(uplinks=(uplink("x0"),)))
    node = pair.ovn.nodes[0]
    node.hold("ovsdb-server")
    for pid in node.pids("ovsdb-server"):
        os.kill(pid, signal.SIGKILL)
    await pair.rigs[0].reports.until(lambda: "does not answer" in pair.rigs[0].switch.problem, 20, "the outage")
    node.release("ovsdb-server")
    await pair.rigs[0].reports.until(lambda: not pair.rigs[0].switch.problem, 20, "the return")
    await pair.until(0, f"ping -c 1 -W 1 {address(2)} >/dev/null")
    report = await pair.rigs[0].switch.put(NodeNetwork())
    assert report.problem == ""
