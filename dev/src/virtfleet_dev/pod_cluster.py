"""A cluster whose operator and daemons are pods: a control plane, and a hypervisor node with a kubelet.

What is in the pods comes by the chart, as on any cluster.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from virtfleet_dev.cluster import Cluster, Say, is_ready, silent
from virtfleet_dev.containers import Image
from virtfleet_dev.fabric import node_name
from virtfleet_dev.kubernetes import binaries, pod_binaries
from virtfleet_dev.node import Node
from virtfleet_dev.pod_control_plane import PodControlPlane
from virtfleet_dev.pod_node import PodNode, install_packages
from virtfleet_dev.process import wait_until

_NODE_SECONDS = 120.0  # 3 s on an idle machine
_SERVICE = "10.96.0.40"  # any that is free in SERVICE_NETWORK
_OVN_SERVICE = "10.96.0.41"  # the same
HYPERVISOR_LABEL = "virtfleet.io/hypervisor=true"


class PodCluster(Cluster):
    """A cluster of one node; state lives in the directory, so any process can pick it up again."""

    control_plane: PodControlPlane

    def __init__(self, directory: Path, say: Say = silent, *, bundled: bool = False) -> None:
        """Take the directory that holds it all, and whether libvirtd, QEMU and OVN shall be pods, too."""
        super().__init__(directory, say)
        self._bundled = bundled
        self.control_plane = PodControlPlane(self.directory)

    def node(self, number: int) -> Node:
        """Return the node with this number, counted from 1."""
        name, folder = node_name(number), self.directory / "nodes" / node_name(number)
        own = not self._bundled
        return Node(name, number, self.fabric, folder, libvirt=own, network_engine=own, pods=True)

    @cached_property
    def pod_node(self) -> PodNode:
        """Return the node's part that runs pods."""
        return PodNode(self.node(1), self.control_plane)

    def up(self, nodes: int = 1) -> None:
        """Start all that does not run, and wait until the node is Ready. There is one."""
        if nodes != 1:
            raise ValueError(f"a cluster of pods has one node: write 1 instead of {nodes}")
        install_packages()
        binaries(), pod_binaries()
        self.fabric.up()
        self.say("Starting etcd, kube-apiserver, kube-controller-manager and kube-scheduler")
        self.control_plane.up()
        self.start_image_server()
        own = "" if self._bundled else "libvirtd, Open vSwitch, "
        self.say(f"Starting {node_name(1)} with {own}containerd and a kubelet")
        self.pod_node.node.up()
        self.pod_node.up()
        self.fabric.route_pods(1)
        wait_until(self._node_ready, _NODE_SECONDS, f"{node_name(1)} to be Ready", self.pod_node.kubelet)
        self.kubectl.run("label", "--overwrite", "node", node_name(1), HYPERVISOR_LABEL)
        self._link_programs()

    def load(self, images: Sequence[Image]) -> Path:
        """Load images of the chart's pods, and return a file with the chart's values for them and this cluster.

        It has no DNS and no registry. Pods are made anew when their image has another content, though its name is the
        same.
        """
        for image in images:
            self.pod_node.load(image.archive)
        replaced = (image for image in images if image.target != "ovn")
        annotations = {image.target: {"podAnnotations": {"virtfleet.test/image": image.id}} for image in replaced}
        name = images[0].name
        values: dict[str, Any] = {
            "image": {"registry": name.partition("/")[0], "tag": name.rpartition(":")[2], "pullPolicy": "Never"},
            **annotations,
        }
        values["operator"] |= {"service": {"clusterIP": _SERVICE}}
        if self._bundled:
            _merge(values, _bundled_values(self.node(1).directory))
        path = self.directory / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def down(self) -> None:
        """Stop all of it, whatever of it fails to; what it kept in the directory's `log` stays."""
        with ExitStack() as last_first:
            last_first.callback(super().down)
            last_first.callback(self.pod_node.down)

    def _node_ready(self) -> bool:
        return is_ready(self.kubectl.get("node", node_name(1)))


def _bundled_values(folder: Path) -> dict[str, Any]:
    """Return what makes the chart bring libvirtd, QEMU and OVN, with the switch's folders below the node's own."""
    return {
        "node": {"hostPaths": {"openvswitch": str(folder / "ovs-run"), "ovn": str(folder / "ovn-run")}},
        "libvirt": {"mode": "Bundled"},
        "ovn": {
            "mode": "Bundled",
            "central": {"service": {"clusterIP": _OVN_SERVICE}},
            "node": {
                "mode": "Bundled",
                "datapath": "netdev",
                "hostPaths": {"openvswitchEtc": str(folder / "ovs-etc")},
            },
        },
    }


def _merge(values: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        values[name] = {**values.get(name, {}), **value}
