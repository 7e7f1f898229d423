"""The physical network of the development nodes carries VLANs, and the link `x0` of each node is theirs to use."""

from collections.abc import Iterator

import pytest

from network_namespace import tcpdump
from ovn_rig import OvnRig, eventually

VLAN = 100
GUEST, HOST = ("02:00:00:00:01:01", "10.22.0.1"), ("02:00:00:00:01:02", "10.22.0.2")


@pytest.fixture
def uplinks(rig: OvnRig) -> Iterator[OvnRig]:
    for node in rig.nodes:
        bridge = ("--may-exist", "add-br", "br-ex", "--", "set", "bridge", "br-ex", "datapath_type=netdev")
        node.run("ovs-vsctl", *bridge, "--", "--may-exist", "add-port", "br-ex", "x0")
        node.run("ovs-vsctl", "set", "open", ".", "external_ids:ovn-bridge-mappings=physical:br-ex")
    yield rig
    rig.remove_probes()
    for node in rig.nodes:
        node.run("ovs-vsctl", "remove", "open", ".", "external_ids", "ovn-bridge-mappings")
        node.run("ovs-vsctl", "del-br", "br-ex")


def test_a_port_of_a_vlan_reaches_a_host_outside_with_tagged_frames(uplinks: OvnRig) -> None:
    one, other = uplinks.nodes
    uplinks.nbctl("ls-add", "net")
    uplinks.nbctl(
        *("lsp-add", "net", "wire", "", str(VLAN)),
        *("--", "lsp-set-type", "wire", "localnet"),
        *("--", "lsp-set-addresses", "wire", "unknown"),
        *("--", "lsp-set-options", "wire", "network_name=physical"),
        *("--", "lsp-add", "net", "guest"),
        *("--", "lsp-set-addresses", "guest", " ".join(GUEST)),
    )
    guest = uplinks.probe(one, "guest", GUEST[0], f"{GUEST[1]}/24")
    outside = uplinks.outsider(other, "br-ex", VLAN, HOST[0], f"{HOST[1]}/24")
    uplinks.wait_up("guest")
    eventually(lambda: guest.pings(HOST[1]), 10, "the first ping")
    stranger = uplinks.outsider(other, "br-ex", VLAN + 1, "02:00:00:00:01:03", f"{HOST[1]}/24")
    with tcpdump(*uplinks.fabric.physical_network, "vlan") as lines:
        assert outside.pings(GUEST[1])
        assert not stranger.pings(GUEST[1])
    assert any(f"vlan {VLAN}," in line and GUEST[1] in line for line in lines)
