"""Every file in examples/ is applied as it stands, and does what it says."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lxml import etree

from fleet import Fleet, eventually
from pictures import count_colours
from viewing import proxy, see
from virtfleet_api.quantity import Bytes, Frequency
from virtfleet_dev.paths import checkout, program

EXAMPLES = sorted((checkout() / "examples").glob("*.yaml"))


def console(fleet: Fleet, name: str) -> str:
    found = fleet.wait_ready(name)
    node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])
    return fleet.console(node, found["metadata"]["uid"])


def prints(name: str, text: str) -> Callable[[Fleet], object]:
    return lambda fleet: eventually(lambda: text in console(fleet, name), f"{name} prints {text}")


def job_ends(fleet: Fleet) -> None:
    eventually(lambda: fleet.status("job").get("printableStatus") == "Stopped", "the job has ended")


def data_disk_is_kept(fleet: Fleet) -> None:
    found = fleet.wait_ready("with-data")
    uid = found["metadata"]["uid"]
    node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])
    fleet.delete("with-data")
    assert [p.stem for p in fleet.pool(node) if uid in str(p)] == ["data"]
    found = [d for d in fleet.cluster.kubectl.list("vmdisk") if d["spec"]["formerMachine"]["uid"] == uid]
    fleet.delete(*[disk["metadata"]["name"] for disk in found], kind="vmdisk")
    assert [p for p in fleet.pool(node) if uid in str(p)] == []


def sized_by_class(fleet: Fleet) -> None:
    assert fleet.wait_ready("sized")["status"]["machine"]["memory"]["current"] == "160Mi"


def limits_change_while_it_runs(fleet: Fleet) -> None:
    found = fleet.wait_ready("limited")
    node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])

    def limits() -> dict[str, dict[str, str]]:
        xml = etree.fromstring(fleet.domain_xml(node, found["metadata"]["uid"]))
        return {
            disk.findtext("serial"): {part.tag: part.text for part in disk.iterfind("iotune/*")}
            for disk in xml.findall("devices/disk[@device='disk']")
        }

    before = limits()
    assert (before["root"]["total_iops_sec"], before["root"]["total_iops_sec_max_length"]) == ("500", "10")
    assert before["data"] == before["logs"] == {"total_bytes_sec": str(50 << 20), "group_name": "group-bulk"}
    disks = found["spec"]["disks"]
    fleet.patch("limited", {"disks": [{**disks[0], "ioTune": {"readIops": 100}}, *disks[1:]]})
    eventually(lambda: limits()["root"].get("read_iops_sec") == "100", "the guest's disk has the new limit")
    after = fleet.wait_ready("limited")
    assert after["status"]["machine"]["startedAt"] == found["status"]["machine"]["startedAt"]
    assert fleet.condition("limited", "RestartRequired").get("status") != "True"


def cpu_is_limited_and_reserved_while_it_runs(fleet: Fleet) -> None:
    found = fleet.wait_ready("fair")
    node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])
    assert found["status"]["machine"]["reservation"] == "200MHz"

    def tune() -> dict[str, str]:
        xml = etree.fromstring(fleet.domain_xml(node, found["metadata"]["uid"]))
        return {part.tag: part.text for part in xml.iterfind("cputune/*") if part.text}

    before = tune()
    assert before["quota"] == before["global_quota"]
    assert int(before["shares"]) >= 500
    has = fleet.status(node.name, "vmnode")
    too_much = f"{2 * Frequency.parse(has['allocatable']['reserved'])}Hz"
    cpu = {"cores": 2 * has["capacity"]["cpus"], "limit": too_much, "reservation": too_much}
    patch = json.dumps({"spec": {"cpu": cpu}})
    refused = fleet.cluster.kubectl.attempt("patch", "vm", "fair", "--type=merge", "-p", patch)
    assert "spec.cpu.reservation: " in refused.stderr
    assert f"is more than node {node.name} has room for" in refused.stderr
    fleet.patch("fair", {"cpu": {"reservation": "200MHz", "limit": "500MHz"}})
    half = int(before["global_quota"]) // 2
    eventually(lambda: abs(int(tune()["global_quota"]) - half) <= 1, "the guest has the new limit")
    after = fleet.wait_ready("fair")
    assert after["status"]["machine"]["startedAt"] == found["status"]["machine"]["startedAt"]


def starts_from_the_drive_and_is_changed_while_it_runs(fleet: Fleet) -> None:
    eventually(lambda: "READY" in console(fleet, "installed"), "the machine starts from the ISO image")
    found = fleet.wait_ready("installed")
    node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])
    disks, uid = found["spec"]["disks"], found["metadata"]["uid"]
    data = {"name": "data", "size": "64Mi", "source": {"blank": {}}}
    fleet.patch("installed", {"disks": [disks[0], {**disks[1], "source": {}}, data]})
    eventually(lambda: "/images/" not in fleet.domain_xml(node, uid), "the ISO image is ejected")
    eventually(lambda: "<serial>data</serial>" in fleet.domain_xml(node, uid), "the new disk is attached")
    eventually(lambda: [d["name"] for d in fleet.status("installed")["disks"]] == ["root", "data"], "it is shown")
    fleet.patch("installed", {"disks": [disks[0], {**disks[1], "source": {}}]})
    eventually(lambda: "<serial>data</serial>" not in fleet.domain_xml(node, uid), "the disk is detached again")
    after = fleet.wait_ready("installed")
    assert after["status"]["machine"]["startedAt"] == found["status"]["machine"]["startedAt"]
    fleet.delete("installer-iso", kind="vmimage")  # nobody needs it any more


def says_that_claims_are_no_disks_here(fleet: Fleet) -> None:
    # The operator may make no pods in this cluster, which has no kubelet: tests/kubelet has the guest run.
    eventually(lambda: fleet.condition("with-claim", "Ready").get("reason") == "VolumesDisabled", "it says why")
    assert fleet.cluster.kubectl.list("pods") == []
    fleet.delete("with-claim")
    fleet.delete("database", kind="pvc")


def is_seen(fleet: Fleet) -> None:
    assert fleet.wait_ready("seen")["status"]["machine"]["display"] == "vga"
    with proxy(fleet.cluster.control_plane.kubeconfig, "seen") as port:
        assert count_colours(see(port)) > 1


def says_which_device_is_missing(fleet: Fleet) -> None:
    eventually(lambda: fleet.status("trainer").get("printableStatus") == "Unschedulable", "no node has such a GPU")
    ready = fleet.condition("trainer", "Ready")
    assert ready["reason"] == "Unschedulable"
    nodes = len(fleet.cluster.nodes)
    assert ready["message"] == f"0/{nodes} nodes fit: {nodes} without device nvidia.com/A10"


def clone_is_a_machine_of_its_own(fleet: Fleet) -> None:
    golden, clone = fleet.wait_ready("golden"), fleet.wait_ready("worker-1")
    assert clone["status"]["nodeName"] == golden["status"]["nodeName"]
    assert clone["status"]["interfaces"][0]["mac"] != golden["status"]["interfaces"][0]["mac"]
    fleet.give_no_time("golden")
    fleet.delete("golden")
    assert fleet.wait_ready("worker-1")["status"]["machine"]["startedAt"] == clone["status"]["machine"]["startedAt"]


def starts_once_the_file_is_sent(fleet: Fleet) -> None:
    command = [program("kubectl-vm"), "--kubeconfig", fleet.cluster.control_plane.kubeconfig, "image", "upload"]
    subprocess.run([*command, "sent-image", "--file", fleet.cluster.images / "guest.qcow2"], check=True, timeout=120)
    eventually(lambda: "READY" in console(fleet, "from-upload"), "the guest of the image that was sent has booted")


def only_members_reach_the_web_server(fleet: Fleet) -> None:
    for name in ("web-server", "web-client"):
        fleet.wait_ready(name)
    assert fleet.status("web-server")["interfaces"][0]["ipAddresses"][0] == "10.1.0.80"
    eventually(lambda: "inet 10.1.0.80/24" in fleet.inside("web-server", "ip addr")[1], "the server has its address")
    fleet.inside("web-server", "for port in 80 81; do nc -ll -p $port -e echo hello & done </dev/null >/dev/null 2>&1")
    ask = "nc -w 1 10.1.0.80 {port} </dev/null"
    eventually(lambda: fleet.inside("web-client", ask.format(port=80))[1].strip() == "hello", "the client is let in")
    assert fleet.inside("web-client", ask.format(port=81))[0] != 0
    fleet.patch("web-client", {"networks": [{"name": "eth0", "switch": "tenant"}]})
    eventually(lambda: fleet.inside("web-client", ask.format(port=80))[0] != 0, "who is no client is not", 10)


def runs_on_cpus_of_their_own(fleet: Fleet) -> None:
    pins = {}
    for name, policy in (("undisturbed", "Bound"), ("pinned", "Pinned")):
        found = fleet.wait_ready(name)
        assert found["status"]["machine"]["numa"] == {"cells": [0], "policy": policy}
        node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])
        xml = etree.fromstring(fleet.domain_xml(node, found["metadata"]["uid"]))
        pins[name] = xml.find("cputune/vcpupin[@vcpu='0']").get("cpuset")
    assert pins["undisturbed"].isdigit(), "one CPU"
    assert pins == {"undisturbed": pins["undisturbed"], "pinned": "0"}
    assert pins["undisturbed"] != "0"


def vcpus_and_memory_change_while_it_runs(fleet: Fleet) -> None:
    found = fleet.wait_ready("elastic")
    eventually(lambda: fleet.condition("elastic", "AgentConnected").get("status") == "True", "the agent answers")

    def shown(cores: int, memory: str) -> bool:
        machine = fleet.status("elastic")["machine"]
        return (machine["vcpus"], machine["memory"]["current"]) == ({"current": cores, "max": 4}, memory)

    _, before = fleet.inside("elastic", "sed -n 's/MemTotal: *//p' /proc/meminfo")
    for cores, memory in ((3, "384Mi"), (1, "160Mi"), (2, "192Mi")):
        fleet.patch("elastic", {"cpu": {"cores": cores}, "memory": {"guest": memory}})
        eventually(lambda want=(cores, memory): shown(*want), f"the status shows {cores} vCPUs and {memory}")
        assert fleet.inside("elastic", "grep -c ^processor /proc/cpuinfo")[1].strip() == str(cores)
        _, after = fleet.inside("elastic", "sed -n 's/MemTotal: *//p' /proc/meminfo")
        grown = int(memory.removesuffix("Mi")) - 192
        assert abs(int(after.split()[0]) - int(before.split()[0]) - grown * 1024) < 12 << 10
    assert fleet.condition("elastic", "RestartRequired").get("status") != "True"
    row = fleet.cluster.kubectl.run("get", "vm", "elastic").splitlines()[1].split()
    assert row[-3:-1] == ["2", "192Mi"]

    fleet.patch("elastic", {"cpu": {"cores": 8, "maxVcpus": 8}})
    waits = eventually(lambda: (c := fleet.condition("elastic", "RestartRequired")).get("status") == "True" and c, "it")
    assert "cpu.maxVcpus, cpu.cores (8 vCPUs, and the running guest can have 4)" in waits["message"]
    after = fleet.status("elastic")["machine"]
    assert after["startedAt"] == found["status"]["machine"]["startedAt"]


def is_captured_with_its_memory(fleet: Fleet) -> None:
    started = fleet.wait_ready("captured")["status"]["machine"]["startedAt"]
    found = eventually(
        lambda: (s := snapshot_status(fleet, "before-upgrade")).get("readyToUse") and s, "it is captured"
    )
    assert {"Online", "Memory"} <= set(found["indications"])
    assert [disk["name"] for disk in found["disks"]] == ["root"]
    assert Bytes.parse(found["memorySize"]) > 1 << 16  # of a guest that has just been switched on, compressed
    assert found["pauseMilliseconds"] >= 0
    assert fleet.wait_ready("captured")["status"]["machine"]["startedAt"] == started, "the guest goes on"


def snapshot_status(fleet: Fleet, name: str) -> dict[str, Any]:
    return fleet.status(name, "vmsnapshot")


def restored(fleet: Fleet, name: str) -> dict[str, Any]:
    """Make what is restored from, which the restore waits for, and return the status of its success."""
    fleet.cluster.kubectl.run("apply", "-f", str(checkout() / "examples" / "vm-snapshot.yaml"))
    eventually(lambda: fleet.status(name, "vmrestore").get("phase") in ("Succeeded", "Failed"), "the restore ends", 300)
    found = fleet.status(name, "vmrestore")
    assert found["phase"] == "Succeeded", found
    return found


def delete_what_was_restored_from(fleet: Fleet) -> None:
    fleet.delete("before-upgrade", kind="vmsnapshot")
    fleet.delete("captured")
    fleet.delete("snapshot-guest", kind="vmimage")


def is_what_it_was_and_the_state_before_is_captured(fleet: Fleet) -> None:
    found = restored(fleet, "undo-upgrade")
    assert [(m["name"], m["warm"]) for m in found["machines"]] == [("captured", True)]
    assert found["snapshotBefore"] == "undo-upgrade-before"
    assert snapshot_status(fleet, "undo-upgrade-before")["readyToUse"]
    fleet.wait_ready("captured")
    fleet.delete("undo-upgrade-before", kind="vmsnapshot")
    delete_what_was_restored_from(fleet)


def go_on_where_the_snapshot_was_taken(fleet: Fleet) -> None:
    found = restored(fleet, "twins")
    assert [(m["name"], m["warm"]) for m in found["machines"]] == [("twin-1", True), ("twin-2", True)]
    made = [fleet.wait_ready(name) for name in ("twin-1", "twin-2", "same-disk")]
    node = snapshot_status(fleet, "before-upgrade")["nodeName"]
    assert {machine["status"]["nodeName"] for machine in made} == {node}
    fleet.delete("twin-1", "twin-2", "same-disk")
    delete_what_was_restored_from(fleet)


def are_captured_every_minute(fleet: Fleet) -> None:
    fleet.wait_ready("scheduled")

    def ready() -> list[str]:
        found = [s for s in fleet.cluster.kubectl.list("vmsnapshot") if s["spec"]["virtualMachine"] == "scheduled"]
        return sorted(s["metadata"]["name"] for s in found if s.get("status", {}).get("readyToUse"))

    first = eventually(lambda: ready()[:1], "the first one is captured", 240)
    assert re.fullmatch(r"often-scheduled-20[0-9]{10}", first[0])
    assert fleet.status("often", "vmsnapshotschedule")["machines"] == 1
    fleet.delete("often", kind="vmsnapshotschedule")
    fleet.delete("scheduled")
    eventually(lambda: not ready(), "the machine takes its snapshots along")


def are_on_different_nodes(fleet: Fleet) -> None:
    places = {fleet.wait_status(name, "Stopped")["nodeName"] for name in ("apart-1", "apart-2")}
    assert len(places) == 2


PROOFS: dict[str, Callable[[Fleet], object]] = {
    "gpu.yaml": says_which_device_is_missing,
    "network.yaml": only_members_reach_the_web_server,
    "quickstart.yaml": prints("quickstart", "READY"),
    "classes.yaml": sized_by_class,
    "cpu.yaml": cpu_is_limited_and_reserved_while_it_runs,
    "cpu-placement.yaml": runs_on_cpus_of_their_own,
    "data-disk.yaml": data_disk_is_kept,
    "pvc-disk.yaml": says_that_claims_are_no_disks_here,
    "disk-limits.yaml": limits_change_while_it_runs,
    "hotplug.yaml": vcpus_and_memory_change_while_it_runs,
    "installer.yaml": starts_from_the_drive_and_is_changed_while_it_runs,
    "display.yaml": is_seen,
    "clone.yaml": clone_is_a_machine_of_its_own,
    "cloud-init.yaml": prints("greeter", "USERDATA hello from greeter"),
    "kernel-boot.yaml": prints("tiny", "READY"),
    "placement.yaml": are_on_different_nodes,
    "vm-snapshot.yaml": is_captured_with_its_memory,
    "vm-snapshot-schedule.yaml": are_captured_every_minute,
    "vm-restore.yaml": is_what_it_was_and_the_state_before_is_captured,
    "vm-restore-new-machines.yaml": go_on_where_the_snapshot_was_taken,
    "upload.yaml": starts_once_the_file_is_sent,
    "run-once.yaml": job_ends,
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(fleet: Fleet, path: Path) -> None:
    fleet.cluster.kubectl.run("apply", "-f", str(path))
    PROOFS[path.name](fleet)
    objects = [d for d in yaml.safe_load_all(path.read_text()) if d["kind"] != "Secret"]
    fleet.give_no_time(*[d["metadata"]["name"] for d in objects if d["kind"] == "VirtualMachine"])
    for kind in (
        "VMSnapshotSchedule",
        "VMRestore",
        "VMSnapshot",
        "VirtualMachine",
        "VMImage",
        "VMClass",
        "SecurityGroup",
        "VirtualSwitch",
    ):
        fleet.delete(*[d["metadata"]["name"] for d in reversed(objects) if d["kind"] == kind], kind=kind)
