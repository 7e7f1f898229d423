"""The one-machine cluster itself: several side by side, and nothing left behind."""

import subprocess
from pathlib import Path

from virtfleet_dev.cluster import Cluster, leftovers
from virtfleet_dev.fabric import Fabric, node_name
from virtfleet_dev.node import Node


def make(directory: Path) -> Node:
    fabric = Fabric.of(directory)
    fabric.up()
    node = Node(node_name(1), 1, fabric, directory / "nodes" / node_name(1))
    node.up()
    return node


def processes_of(directory: Path) -> list[str]:
    shown = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    return [line for line in shown.splitlines() if str(directory) in line]


def test_two_nodes_of_two_clusters_know_nothing_of_each_other_and_leave_nothing(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    try:
        assert one.address != two.address
        assert one.run("hostname") == two.run("hostname")
        for node in (one, two):
            xml = "<domain type='qemu'><name>probe</name><memory>8192</memory><os><type>hvm</type></os></domain>"
            subprocess.run(["virsh", "-c", node.uri, "define", "/dev/stdin"], input=xml, text=True, check=True)
        subprocess.run(["virsh", "-c", one.uri, "undefine", "probe"], check=True, capture_output=True)
        listed = subprocess.run(["virsh", "-c", two.uri, "list", "--all", "--name"], check=True, capture_output=True)
        assert listed.stdout.split() == [b"probe"]
        assert leftovers(one.fabric.id)
    finally:
        for directory in ("one", "two"):
            Cluster(tmp_path / directory).down()
    for node in (one, two):
        assert leftovers(node.fabric.id) == ()
        assert processes_of(node.directory) == []


def test_libvirtd_comes_back_and_can_be_held_down(libvirt_node: Node) -> None:
    (before,) = libvirt_node.pids("libvirtd")
    subprocess.run(["kill", "-9", str(before)], check=True)
    libvirt_node.up()
    (after,) = libvirt_node.pids("libvirtd")
    assert after != before
