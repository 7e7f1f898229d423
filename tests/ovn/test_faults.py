"""Any part of the network engine may be killed at any moment, and traffic goes on or comes back by itself."""

import os
import signal

import pytest

from ovn_rig import OvnRig, Probe, eventually

MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c")
ADDRESSES = ("10.21.0.1", "10.21.0.2", "10.21.0.3")
BACK_SECONDS = 15.0


def add_port(rig: OvnRig, number: int) -> Probe:
    name, mac, address = f"port{number}", MACS[number], ADDRESSES[number]
    rig.nbctl("lsp-add", "net", name, "--", "lsp-set-addresses", name, f"{mac} {address}")
    return rig.probe(rig.nodes[number % 2], name, mac, f"{address}/24")


@pytest.fixture
def ports(rig: OvnRig) -> tuple[Probe, Probe]:
    rig.nbctl("ls-add", "net")
    one, two = add_port(rig, 0), add_port(rig, 1)
    rig.wait_up("port0", "port1")
    eventually(lambda: one.pings(ADDRESSES[1]), BACK_SECONDS, "the first ping")
    return one, two


@pytest.mark.parametrize("program", ["ovn-controller", "ovs-vswitchd", "ovsdb-server"])
def test_a_part_of_a_node_is_killed(rig: OvnRig, ports: tuple[Probe, Probe], program: str) -> None:
    node = rig.nodes[0]
    (before,) = node.pids(program)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: node.pids(program) not in ((), (before,)), BACK_SECONDS, f"{program} to be started again")
    eventually(lambda: ports[0].pings(ADDRESSES[1]), BACK_SECONDS, "traffic to be back")
    new = add_port(rig, 2)  # on the same node
    rig.wait_up("port2", seconds=BACK_SECONDS)
    eventually(lambda: new.pings(ADDRESSES[1]), BACK_SECONDS, "a new port to have traffic")
    assert ports[1].pings(ADDRESSES[2])


@pytest.mark.parametrize("name", ["northbound", "southbound", "northd"])
def test_a_central_part_is_killed(rig: OvnRig, ports: tuple[Probe, Probe], name: str) -> None:
    central = rig.central
    program = central.northd if name == "northd" else getattr(central, name).program
    before = program.inner_pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert ports[0].pings(ADDRESSES[1])  # what is set up needs none of them
    eventually(lambda: program.inner_pid not in (None, before), BACK_SECONDS, f"{program.name} to be started again")
    eventually(lambda: central.northbound.answers() and central.southbound.answers(), BACK_SECONDS, "the databases")
    new = add_port(rig, 2)
    rig.wait_up("port2", seconds=BACK_SECONDS)
    eventually(lambda: new.pings(ADDRESSES[1]), BACK_SECONDS, "a new port to have traffic")
    assert rig.central.chassis == {node.name for node in rig.nodes}


def test_a_node_that_is_held_without_ovn_controller_keeps_its_traffic(rig: OvnRig, ports: tuple[Probe, Probe]) -> None:
    node = rig.nodes[0]
    node.hold("ovn-controller")
    try:
        (pid,) = node.pids("ovn-controller")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not node.pids("ovn-controller"), BACK_SECONDS, "ovn-controller to be gone")
        assert ports[0].pings(ADDRESSES[1])
    finally:
        node.release("ovn-controller")
    eventually(lambda: node.pids("ovn-controller"), BACK_SECONDS, "ovn-controller to be back")
    eventually(lambda: ports[0].pings(ADDRESSES[1]), BACK_SECONDS, "traffic under the new ovn-controller")


def test_a_node_comes_back_after_a_power_failure(rig: OvnRig) -> None:
    node = rig.nodes[0]
    node.crash()
    node.up()
    rig.nbctl("ls-add", "net")
    one, two = add_port(rig, 0), add_port(rig, 1)
    rig.wait_up("port0", "port1")
    assert eventually(lambda: one.pings(ADDRESSES[1]), BACK_SECONDS, "traffic of the node that is back") < BACK_SECONDS
    assert two.pings(ADDRESSES[0])
