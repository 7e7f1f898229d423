"""Switches, addresses and security groups as users have them, on two nodes with a real OVN."""

import json
import os
import re
import signal
import subprocess
from typing import Any

import pytest

from fleet import Fleet, eventually
from virtfleet_dev.kubectl import KubectlError
from virtfleet_dev.paths import program

SWITCH = "e2e-tenant"
SUBNET = {"cidr": "10.71.0.0/24", "gateway": "10.71.0.1", "domain": "fleet.example"}


def on(fleet: Fleet, name: str, node: int, *cards: dict[str, Any], **spec: Any) -> dict[str, Any]:
    place = {"kubernetes.io/hostname": fleet.cluster.nodes[node].name}
    networks = [{"switch": SWITCH, **card} for card in cards]
    return fleet.machine(name, networks=networks, nodeSelector=place, **spec)


def address(fleet: Fleet, name: str, card: int = 0) -> str:
    return str(fleet.status(name)["interfaces"][card]["ipAddresses"][0])


def reaches(fleet: Fleet, name: str, target: str, port: int = 80) -> bool:
    return fleet.inside(name, f"nc -w 1 {target} {port} </dev/null >/dev/null 2>&1")[0] == 0


def serve(fleet: Fleet, name: str, port: int = 80) -> None:
    """Have a guest answer on a port until it ends."""
    fleet.inside(name, f"nc -ll -p {port} -e echo hello </dev/null >/dev/null 2>&1 & sleep 0.2")


def rules(fleet: Fleet, **spec: Any) -> None:
    fleet.cluster.kubectl.run("patch", "sg", "e2e-web", "--type=merge", "-p", json.dumps({"spec": spec}))


def kill_operator(fleet: Fleet) -> None:
    """Kill the process whose keeper starts another."""
    keeper = fleet.cluster.operator.pid
    said = subprocess.run(["pgrep", "-P", str(keeper)], capture_output=True, text=True, check=True).stdout
    os.kill(int(said.split()[0]), signal.SIGKILL)


def rows(fleet: Fleet) -> dict[str, set[str]]:
    """Return the UUIDs of what OVN is told: what is taken away and made again has another."""
    tables = ("Logical_Switch", "Logical_Switch_Port", "Port_Group", "ACL", "DHCP_Options", "DNS")
    ask = fleet.cluster.ovn.northbound.run
    return {table: set(ask("--bare", "--columns=_uuid", "list", table).split()) for table in tables}


@pytest.fixture(scope="module")
def net(fleet: Fleet) -> Fleet:
    """Two machines on two nodes, a third whose card is in no group."""
    fleet.apply("VirtualSwitch", SWITCH, {"subnet": SUBNET})
    fleet.wait_ready(SWITCH, "vsw")
    fleet.apply("SecurityGroup", "e2e-web", {"ingress": [{"ports": [{"port": 80}, {"protocol": "ICMP"}]}]})
    on(fleet, "net-web", 0, {"name": "eth0", "ipAddress": "10.71.0.80", "securityGroups": ["e2e-web"]})
    on(fleet, "net-client", 1, {"name": "eth0"})
    on(fleet, "net-other", 0, {"name": "eth0"})
    for name in ("net-web", "net-client", "net-other"):
        fleet.wait_ready(name)
        shown = address(fleet, name)
        eventually(lambda name=name, shown=shown: f"inet {shown}/24" in fleet.inside(name, "ip addr")[1], "DHCP")
    serve(fleet, "net-web")
    serve(fleet, "net-web", 81)
    yield fleet
    fleet.delete("net-web", "net-client", "net-other")
    fleet.delete("e2e-web", kind="sg")
    fleet.delete(SWITCH, kind="vsw")


def test_guests_have_their_addresses_and_reach_each_other_over_the_tunnel(net: Fleet) -> None:
    assert address(net, "net-web") == "10.71.0.80"
    assert net.status("net-web")["nodeName"] != net.status("net-client")["nodeName"]
    assert net.inside("net-client", "ping -c 3 -W 2 10.71.0.80 >/dev/null")[0] == 0
    # A packet that fills the guest's MTU, not to be broken up on the way.
    assert "mtu 1442" in net.inside("net-client", "ip link show eth0")[1]
    assert reaches(net, "net-client", "10.71.0.80")
    shown = net.cluster.kubectl.run("get", "vm", "net-web", "--no-headers")
    assert "10.71.0.80" in shown
    held = {a["spec"]["holder"]["name"]: a["spec"]["address"] for a in net.cluster.kubectl.list("vmaddress")}
    assert {name: address(net, name) for name in ("net-web", "net-client", "net-other")}.items() <= held.items()
    nodes = eventually(lambda: net.status(SWITCH, "vsw").get("nodes"), "the nodes of the switch")
    assert [node["ready"] for node in nodes] == [True, True]
    eventually(lambda: net.status(SWITCH, "vsw")["ports"] == 3, "the ports are counted")


def test_a_rule_holds_soon_and_cuts_only_what_it_no_longer_allows(net: Fleet) -> None:
    assert not reaches(net, "net-client", "10.71.0.80", 81)
    rules(net, ingress=[{"ports": [{"port": 80, "endPort": 81}, {"protocol": "ICMP"}]}])
    eventually(lambda: reaches(net, "net-client", "10.71.0.80", 81), "the new rule holds", 30)
    rules(net, ingress=[{"ports": [{"port": 80}, {"protocol": "ICMP"}]}])
    eventually(lambda: not reaches(net, "net-client", "10.71.0.80", 81), "the rule is gone", 30)
    assert reaches(net, "net-client", "10.71.0.80", 80)
    eventually(lambda: net.status("e2e-web", "sg").get("members") == 1, "the member is counted")
    rules(net, ingress=[{"from": [{"securityGroup": {"name": "e2e-web"}}]}])
    eventually(lambda: not reaches(net, "net-client", "10.71.0.80"), "members alone reach it", 30)
    net.patch("net-client", {"networks": [{"name": "eth0", "switch": SWITCH, "securityGroups": ["e2e-web"]}]})
    eventually(lambda: reaches(net, "net-client", "10.71.0.80"), "it is a member now", 30)
    net.patch("net-client", {"networks": [{"name": "eth0", "switch": SWITCH}]})
    eventually(lambda: not reaches(net, "net-client", "10.71.0.80"), "it is none any more", 30)
    rules(net, ingress=[{"ports": [{"port": 80}, {"protocol": "ICMP"}]}])


def test_what_clashes_is_refused_with_the_other_partys_name(net: Fleet) -> None:
    with pytest.raises(
        KubectlError, match=r"'10.71.0.80' on VirtualSwitch e2e-tenant is held by VirtualMachine default/net-web"
    ):
        on(net, "net-clash", 0, {"name": "eth0", "ipAddress": "10.71.0.80"})
    with pytest.raises(KubectlError, match=r"overlaps 10\.71.0.0/24 of VirtualSwitch e2e-tenant"):
        net.apply("VirtualSwitch", "e2e-overlap", {"subnet": {"cidr": "10.71.0.0/25"}})
    with pytest.raises(KubectlError, match="VirtualSwitch e2e-tenant is used by machines default/net-client"):
        net.cluster.kubectl.run("delete", "vsw", SWITCH, "--wait=false")
    with pytest.raises(KubectlError, match="SecurityGroup e2e-web has members, machine default/net-web"):
        net.cluster.kubectl.run("delete", "sg", "e2e-web", "--wait=false")


def test_an_address_outlives_restarts_of_machine_and_operator(net: Fleet) -> None:
    before = net.status("net-other")["interfaces"][0]
    net.patch("net-other", {"runStrategy": "Halted"})
    net.wait_status("net-other", "Stopped")
    kill_operator(net)
    assert reaches(net, "net-client", "10.71.0.80"), "what runs goes on without an operator"
    net.patch("net-other", {"runStrategy": "Always"})
    net.wait_ready("net-other")
    after = net.status("net-other")["interfaces"][0]
    assert {key: after[key] for key in ("mac", "port")} == {key: before[key] for key in ("mac", "port")}
    assert after["ipAddresses"][0] == before["ipAddresses"][0]
    eventually(lambda: reaches(net, "net-other", "10.71.0.80"), "it is connected again")


def test_a_new_operator_takes_nothing_away(net: Fleet) -> None:
    before = rows(net)
    kill_operator(net)
    rules(net, egress=[{"ports": [{"port": 53}]}])
    eventually(lambda: rows(net)["ACL"] - before["ACL"], "the new operator is at work")
    after = rows(net)
    assert {table: found - after[table] for table, found in before.items()} == {table: set() for table in before}
    rules(net, egress=None)
    eventually(lambda: rows(net) == before, "the new rule is gone")


def test_a_card_comes_and_goes_while_the_machine_runs(net: Fleet) -> None:
    card, started = {"name": "eth0", "switch": SWITCH}, net.status("net-other")["machine"]["startedAt"]
    net.patch("net-other", {"networks": [card, {"name": "eth1", "switch": SWITCH}]})
    eventually(lambda: len(net.status("net-other").get("interfaces", [])) == 2, "the card is shown")
    second = eventually(lambda: address(net, "net-other", 1), "it has an address")
    eventually(lambda: f"inet {second}/24" in net.inside("net-other", "ip addr")[1], "the guest has it")
    net.patch("net-other", {"networks": [{**card, "state": "down"}]})
    eventually(lambda: "NO-CARRIER" in net.inside("net-other", "ip link show eth0")[1], "the cable is pulled")
    eventually(lambda: len(net.status("net-other")["interfaces"]) == 1, "the card is gone")
    released = lambda: [a for a in net.cluster.kubectl.list("vmaddress") if a["spec"].get("releasedAt")]  # noqa: E731
    assert second in {a["spec"]["address"] for a in eventually(released, "its address cools down")}
    net.patch("net-other", {"networks": [card]})
    eventually(lambda: reaches(net, "net-other", "10.71.0.80"), "the cable is back")
    assert net.status("net-other")["machine"]["startedAt"] == started


def test_vlans_of_a_physical_network_are_apart(net: Fleet) -> None:
    groups = [{"name": "red", "vlan": 101}, {"name": "blue", "vlan": 102}, {"name": "desk", "binding": "Dynamic"}]
    spec = {"type": "Uplink", "uplink": {"interface": "x0", "vlans": "101-102"}, "portGroups": groups}
    net.apply("VirtualSwitch", "e2e-office", {**spec, "subnet": {"cidr": "10.73.0.0/24"}})
    eventually(lambda: [n["ready"] for n in net.status("e2e-office", "vsw").get("nodes", [])] == [True, True], "x0")
    with pytest.raises(KubectlError, match="103 is not among the VLANs of VirtualSwitch e2e-office"):
        net.machine("net-refused", networks=[{"name": "eth0", "switch": "e2e-office", "vlan": 103}])
    web, client = ({"name": "eth1", "switch": "e2e-office", "portGroup": "red"} for _ in range(2))
    first = {"name": "eth0", "switch": SWITCH}
    guarded = {**first, "ipAddress": "10.71.0.80", "securityGroups": ["e2e-web"]}
    net.patch("net-web", {"networks": [guarded, web]})
    net.patch("net-client", {"networks": [first, client]})
    target = eventually(lambda: len(net.status("net-web")["interfaces"]) == 2 and address(net, "net-web", 1), "a card")
    eventually(lambda: f"inet {target}/24" in net.inside("net-web", "ip addr")[1], "it has its address")
    eventually(lambda: reaches(net, "net-client", target), "one VLAN is one LAN on both nodes")
    net.patch("net-client", {"networks": [first, {**client, "portGroup": "blue"}]})
    eventually(lambda: not reaches(net, "net-client", target), "another VLAN is another LAN", 30)
    net.patch("net-client", {"networks": [first, {"name": "eth1", "switch": "e2e-office", "vlan": 101}]})
    eventually(lambda: reaches(net, "net-client", target), "it is back", 30)
    net.patch("net-web", {"networks": [guarded]})
    net.patch("net-client", {"networks": [first]})
    for name in ("net-web", "net-client"):
        eventually(lambda name=name: len(net.status(name)["interfaces"]) == 1, "the card is gone")
    net.delete("e2e-office", kind="vsw")


def test_a_dynamic_card_gives_its_address_back_while_its_machine_is_off(net: Fleet) -> None:
    desk = {"subnet": {"cidr": "10.74.0.0/24"}, "portGroups": [{"name": "desk", "binding": "Dynamic"}]}
    net.apply("VirtualSwitch", "e2e-desk", desk)
    net.machine("net-desk", networks=[{"name": "eth0", "switch": "e2e-desk", "portGroup": "desk"}])
    net.wait_ready("net-desk")

    def held() -> dict[str, bool]:
        found = [a["spec"] for a in net.cluster.kubectl.list("vmaddress") if a["spec"]["switch"] == "e2e-desk"]
        return {spec["address"]: "releasedAt" in spec for spec in found}

    before = address(net, "net-desk")
    assert held() == {before: False}
    net.patch("net-desk", {"runStrategy": "Halted"})
    net.wait_status("net-desk", "Stopped")
    eventually(lambda: held() == {before: True}, "it is given back")
    net.patch("net-desk", {"runStrategy": "Always"})
    net.wait_ready("net-desk")
    assert held() == {before: False}, "nobody else has taken it meanwhile"
    net.delete("net-desk")
    net.delete("e2e-desk", kind="vsw")


def test_ports_are_shown_with_what_has_passed(net: Fleet) -> None:
    command = [program("kubectl-vm"), "--kubeconfig", net.cluster.control_plane.kubeconfig, "ports", "net-web"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    head, line = shown.splitlines()[:2]
    values = dict(zip(re.split(r"\s{2,}", head.strip()), re.split(r"\s{2,}", line.strip()), strict=False))
    assert (values["MACHINE"], values["INTERFACE"], values["SWITCH"], values["STATE"]) == (
        "net-web",
        "eth0",
        SWITCH,
        "up",
    )
    assert values["ADDRESSES"].startswith("10.71.0.80")


def test_a_machine_waits_for_its_switch_and_its_group(net: Fleet) -> None:
    net.machine("net-early", networks=[{"name": "eth0", "switch": "e2e-late", "securityGroups": ["e2e-late"]}])
    eventually(lambda: net.condition("net-early", "Ready").get("reason") == "SwitchNotFound", "it waits for the switch")
    net.apply("VirtualSwitch", "e2e-late", {"subnet": {"cidr": "10.72.0.0/30"}})
    eventually(
        lambda: net.condition("net-early", "Ready").get("reason") == "SecurityGroupNotFound", "and for the group"
    )
    net.apply("SecurityGroup", "e2e-late", {})
    net.wait_ready("net-early")
    net.machine("net-full", networks=[{"name": "eth0", "switch": "e2e-late"}])
    eventually(
        lambda: net.condition("net-full", "Ready").get("reason") == "SubnetExhausted", "there is no address left"
    )
    assert "all 1 addresses of 10.72.0.0/30" in net.condition("net-full", "Ready")["message"]
    net.delete("net-early", "net-full")
    net.delete("e2e-late", kind="sg")
    net.delete("e2e-late", kind="vsw")
