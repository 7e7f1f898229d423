"""Images made from a disk of a machine or a snapshot, as a user sees them."""

import json
import os
import signal
import subprocess

import pytest

from fleet import Fleet, eventually
from virtfleet_dev.kubectl import KubectlError
from virtfleet_dev.node import Node
from virtfleet_dev.paths import program

OF_WEB = {"source": {"disk": {"virtualMachine": "web-1", "name": "root"}}}


def node_of(fleet: Fleet, name: str) -> Node:
    where = fleet.wait_ready(name)["status"]["nodeName"]
    return next(node for node in fleet.cluster.nodes if node.name == where)


def test_a_machine_on_another_node_starts_from_an_image_of_a_disk_whose_machine_is_gone(fleet: Fleet) -> None:
    fleet.apply("VMImage", "golden-root", OF_WEB)
    says = eventually(lambda: fleet.condition("golden-root", "Ready", "vmimage"), "it says what it waits for")
    assert (says["reason"], "'web-1'" in says["message"]) == ("SourceNotFound", True)
    fleet.image("web-base")
    disk = {"name": "root", "source": {"image": {"name": "web-base"}}}
    fleet.machine("web-1", kernelBoot=None, disks=[disk])
    made = fleet.wait_ready("golden-root", "vmimage")
    source = node_of(fleet, "web-1")
    assert [node["name"] for node in made["status"]["nodes"]] == [source.name]
    changed = {**made, "spec": {"source": {"disk": {"virtualMachine": "web-1", "name": "data"}}}}
    refused = fleet.cluster.kubectl.attempt("apply", "-f", "-", stdin=json.dumps(changed))
    assert "cannot change once the image is imported" in refused.stderr
    fleet.delete("web-1")
    fleet.delete("web-base", kind="vmimage")

    other = next(node for node in fleet.cluster.nodes if node.name != source.name)
    disk = {"name": "root", "source": {"image": {"name": "golden-root"}}}
    place = {"kubernetes.io/hostname": other.name}
    fleet.machine("web-2", kernelBoot=None, disks=[disk], nodeSelector=place)
    uid = fleet.wait_ready("web-2")["metadata"]["uid"]
    eventually(lambda: "READY" in fleet.console(other, uid), "the guest has booted from the image")
    after = fleet.wait_ready("golden-root", "vmimage")["status"]
    assert after["checksum"] == made["status"]["checksum"]
    assert {node["name"] for node in after["nodes"]} == {source.name, other.name}
    fleet.delete("web-2")
    fleet.delete("golden-root", kind="vmimage")


def test_a_daemon_that_is_killed_while_it_makes_an_image_makes_it_anew(fleet: Fleet) -> None:
    data = {"name": "root", "size": "1Gi", "source": {"blank": {}}}
    fleet.machine("web-1", disks=[data], terminationGracePeriodSeconds=0)
    node = node_of(fleet, "web-1")
    stop = [program("kubectl-vm"), "--kubeconfig", fleet.cluster.control_plane.kubeconfig, "stop", "web-1"]
    subprocess.run([*stop, "--force", "--wait"], check=True, timeout=60)
    (path,) = fleet.pool(node)
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 600M", path]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    fleet.apply("VMImage", "bulky", OF_WEB)
    uid = fleet.get("bulky", "vmimage")["metadata"]["uid"]
    folder = node.directory / "virtfleet/pools/default/images" / uid
    partial = folder / "disk.partial"
    eventually(lambda: partial.exists() and partial.stat().st_blocks * 512 > 20 << 20, "the copy is under way")
    os.kill(eventually(lambda: fleet.cluster.daemon(node).inner_pid, "the daemon runs"), signal.SIGKILL)
    fleet.wait_ready("bulky", "vmimage")
    assert sorted(p.name for p in folder.iterdir()) == ["disk", "image.json", "ready.json"]
    subprocess.run(["qemu-img", "compare", folder / "disk", path], check=True)
    fleet.delete("web-1")
    fleet.delete("bulky", kind="vmimage")
    assert not folder.exists()


def test_a_machine_starts_from_an_image_of_a_snapshot_that_is_gone(fleet: Fleet) -> None:
    fleet.image("web-base")
    fleet.machine("web-1", kernelBoot=None, disks=[{"name": "root", "source": {"image": {"name": "web-base"}}}])
    source = node_of(fleet, "web-1")
    fleet.apply("VMSnapshot", "before", {"virtualMachine": "web-1", "mode": "Disk"})
    fleet.wait_ready("before", "vmsnapshot")
    wrong = {"source": {"snapshot": {"name": "before", "disk": "data"}}}
    with pytest.raises(KubectlError, match="VMSnapshot 'before' has no disk 'data': write one of root"):
        fleet.apply("VMImage", "golden-root", wrong)
    fleet.apply("VMImage", "golden-root", {"source": {"snapshot": {"name": "before", "disk": "root"}}})
    fleet.wait_ready("golden-root", "vmimage")
    fleet.delete("before", kind="vmsnapshot")
    fleet.delete("web-1")
    fleet.delete("web-base", kind="vmimage")
    other = next(node for node in fleet.cluster.nodes if node.name != source.name)
    disk = {"name": "root", "source": {"image": {"name": "golden-root"}}}
    fleet.machine("web-2", kernelBoot=None, disks=[disk], nodeSelector={"kubernetes.io/hostname": other.name})
    uid = fleet.wait_ready("web-2")["metadata"]["uid"]
    eventually(lambda: "READY" in fleet.console(other, uid), "the guest has booted from the image")
    fleet.delete("web-2")
    fleet.delete("golden-root", kind="vmimage")
