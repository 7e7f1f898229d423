"""The network engine of a whole cluster: every node is a chassis, by the certificate that it got when it enrolled."""

from fleet import Fleet, eventually


def test_every_node_is_a_chassis_by_its_own_certificate(fleet: Fleet) -> None:
    cluster = fleet.cluster
    eventually(lambda: cluster.ovn.chassis == {node.name for node in cluster.nodes}, "every node is a chassis")
    for node in cluster.nodes:
        said = node.run("ovn-appctl", "-t", "ovn-controller", "connection-status")
        assert said.strip() == "connected"
        remote = node.run("ovs-vsctl", "get", "open", ".", "external_ids:ovn-remote")
        assert remote.strip().strip('"') == cluster.ovn.southbound.remote
        shown = node.run("ovs-vsctl", "get-ssl")
        assert "/var/lib/virtfleet/tls/ovn.crt" in shown
