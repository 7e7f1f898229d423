"""Disks that outlive their machine: kept as VMDisks, taken over by other machines, deleted as objects."""

from pathlib import Path
from typing import Any

from fleet import Fleet, eventually
from virtfleet_dev.node import Node

WRITE = "#!/bin/sh\nprintf 'left by the first' | dd of=/dev/vda 2>/dev/null; sync; echo written\n"
READ = '#!/bin/sh\necho "$(head -c 17 /dev/vda)"\n'


def node_of(fleet: Fleet, machine: dict[str, Any]) -> Node:
    return next(n for n in fleet.cluster.nodes if n.name == machine["status"]["nodeName"])


def files(fleet: Fleet, node: Node, disk: dict[str, Any]) -> list[Path]:
    uid = disk["spec"]["formerMachine"]["uid"]
    return [path for path in fleet.pool(node) if uid in str(path)]


def kept(fleet: Fleet, machine: str) -> dict[str, Any]:
    """Return the only VMDisk of a former machine, once it can be taken over."""

    def available() -> dict[str, Any] | None:
        found = [d for d in fleet.cluster.kubectl.list("vmdisk") if d["spec"]["formerMachine"]["name"] == machine]
        assert len(found) < 2
        return found[0] if found and found[0].get("status", {}).get("phase") == "Available" else None

    found: dict[str, Any] = eventually(available, f"the disk of {machine} is a VMDisk")
    return found


def leave_a_disk(fleet: Fleet, name: str, user_data: str = WRITE) -> dict[str, Any]:
    data = {"name": "data", "size": "64Mi", "source": {"blank": {}}, "reclaimPolicy": "Retain"}
    fleet.machine(name, disks=[data], cloudInit={"userData": user_data})
    return fleet.wait_ready(name)


def test_a_kept_disk_goes_to_the_next_machine_with_all_that_is_on_it(fleet: Fleet) -> None:
    first = leave_a_disk(fleet, "first-owner")
    node = node_of(fleet, first)
    eventually(lambda: "USERDATA written" in fleet.console(node, first["metadata"]["uid"]), "the mark is written")
    fleet.delete("first-owner")
    disk = kept(fleet, "first-owner")
    name = disk["metadata"]["name"]
    assert disk["spec"]["nodeName"] == node.name
    assert disk["status"]["capacity"] == "64Mi"
    (left,) = files(fleet, node, disk)

    wanted = {"name": "taken", "source": {"vmDisk": {"name": name}}}
    refused = fleet.cluster.kubectl.attempt("patch", "vmdisk", name, "--type=merge", "-p", '{"spec":{"pool":"other"}}')
    assert "spec: cannot change" in refused.stderr
    fleet.machine("second-owner", disks=[wanted], cloudInit={"userData": READ})
    second = fleet.wait_ready("second-owner")
    assert node_of(fleet, second) == node
    said = "USERDATA left by the first"
    eventually(lambda: said in fleet.console(node, second["metadata"]["uid"]), "the mark is there")
    eventually(lambda: not fleet.cluster.kubectl.get("vmdisk", name), "the VMDisk is gone")
    assert not left.parent.exists()
    assert fleet.wait_ready("second-owner")["status"]["disks"][0]["name"] == "taken"
    fleet.delete("second-owner")
    assert fleet.pool(node) == []


def test_a_kept_disk_outlives_the_operator_and_is_deleted_as_an_object(fleet: Fleet) -> None:
    node = node_of(fleet, leave_a_disk(fleet, "killed-over"))
    fleet.cluster.kubectl.run("delete", "vm", "killed-over", "--wait=false")
    fleet.cluster.operator.kill()
    fleet.cluster.start_operator()
    disk = kept(fleet, "killed-over")
    eventually(lambda: not fleet.get("killed-over"), "the machine is gone")
    name = disk["metadata"]["name"]
    assert [path.name for path in files(fleet, node, disk)] == ["data.qcow2"]

    wanted = {"name": "data", "source": {"vmDisk": {"name": name}}}
    fleet.machine("holder", disks=[wanted], runStrategy="Halted")
    eventually(lambda: fleet.status(name, "vmdisk").get("phase") == "InUse", "the disk is promised")
    fleet.machine("latecomer", disks=[wanted])
    late = eventually(lambda: fleet.condition("latecomer", "Ready"), "a reason")
    assert late["reason"] == "VMDiskNotAvailable"
    assert "is taken over by VirtualMachine 'holder'" in late["message"]
    refused = fleet.cluster.kubectl.attempt("delete", "vmdisk", name, "--wait=false")
    assert "is named by VirtualMachine default/holder" in refused.stderr
    fleet.delete("latecomer", "holder")
    assert kept(fleet, "killed-over")["metadata"]["uid"] == disk["metadata"]["uid"]
    assert len(files(fleet, node, disk)) == 1, "a machine that never took it has not deleted it"

    fleet.delete(name, kind="vmdisk")
    assert files(fleet, node, disk) == []


def test_an_object_that_somebody_made_up_touches_no_file(fleet: Fleet) -> None:
    machine = leave_a_disk(fleet, "real-owner")
    node = node_of(fleet, machine)
    former = {"name": "real-owner", "uid": machine["metadata"]["uid"]}
    spec = {"nodeName": node.name, "pool": "default", "disk": "data", "formerMachine": former}
    fleet.apply("VMDisk", "made-up", spec)
    ready = eventually(lambda: fleet.condition("made-up", "Ready", "vmdisk"), "a reason")
    assert ready["reason"] == "NotHandedOver"
    fleet.delete("made-up", kind="vmdisk")
    fleet.delete("real-owner")
    disk = kept(fleet, "real-owner")
    assert len(files(fleet, node, disk)) == 1
    fleet.delete(disk["metadata"]["name"], kind="vmdisk")
    assert fleet.pool(node) == []
