"""A machine brought back to an instant, and new ones made from it, as a user does that with kubectl."""

import json
import subprocess
from pathlib import Path
from typing import Any

from fleet import Fleet, eventually
from virtfleet_dev.paths import program

DISK = {"name": "data", "size": "64Mi", "source": {"blank": {}}}


def vm(fleet: Fleet, *words: str) -> str:
    command = [program("kubectl-vm"), "--kubeconfig", fleet.cluster.control_plane.kubeconfig, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def keep(fleet: Fleet, name: str, number: int) -> None:
    """Have the guest keep a number in its memory, in a process and on its disk."""
    disk = f"printf %512s {number} | dd of=/dev/vda bs=512 count=1 conv=fsync,notrunc"
    assert fleet.inside(name, f"echo {number} > /value; {disk}")[0] == 0


def kept(fleet: Fleet, name: str) -> list[str]:
    status, said = fleet.inside(name, "cat /value; dd if=/dev/vda bs=512 count=1 2>/dev/null; echo; cat /proc/uptime")
    assert status == 0, said
    return said.split()[:2]


def uptime(fleet: Fleet, name: str) -> float:
    return float(fleet.inside(name, "cat /proc/uptime")[1].split()[0])


def macs(fleet: Fleet, name: str) -> set[str]:
    """Return the MAC addresses that the guest itself has, but for those of no card."""
    words = fleet.inside(name, "cat /sys/class/net/*/address")[1].split()
    return {word for word in words if word != "00:00:00:00:00:00"}


def files(fleet: Fleet) -> set[Path]:
    """Return what the nodes' pools have of machines and snapshots."""
    found = (path for node in fleet.cluster.nodes for path in (*fleet.pool(node), *fleet.snapshots(node)))
    return {path for path in found if path.is_file()}


def of_status(fleet: Fleet, name: str) -> set[str]:
    return {card["mac"] for card in fleet.status(name)["interfaces"]}


def test_a_machine_goes_back_and_new_ones_go_on_from_the_same_instant(fleet: Fleet) -> None:
    before = files(fleet)
    fleet.machine("then", disks=[DISK], networks=[{"name": "eth0", "user": {}}])
    fleet.wait_ready("then")
    keep(fleet, "then", 1)
    assert "with its memory" in vm(fleet, "snapshot", "then", "first")
    snapshot = fleet.status("first", "vmsnapshot")
    assert snapshot["readyToUse"]
    assert {"Online", "Memory"} <= set(snapshot["indications"])
    assert snapshot["pauseMilliseconds"] < 2000
    seconds, generation = uptime(fleet, "then"), fleet.get("then")["metadata"]["generation"]
    keep(fleet, "then", 2)
    vm(fleet, "restore", "then", "first", "--snapshot-first", "--yes")
    assert kept(fleet, "then") == ["1", "1"]
    assert fleet.get("then")["metadata"]["generation"] == generation, "a restore changes no spec"
    assert uptime(fleet, "then") < seconds + 120, "it went on, and was not booted"
    (second,) = [s["metadata"]["name"] for s in listed(fleet) if s["metadata"]["name"].endswith("-before")]
    tree = vm(fleet, "snapshots", "then").splitlines()
    assert any("first" in line for line in tree)
    assert any(second in line for line in tree)

    vm(fleet, "restore", "--new", "copy", "--count", "2", "--reset-machine-id", "first")
    names = ["copy-1", "copy-2"]
    for name in names:
        fleet.wait_ready(name)
        assert kept(fleet, name) == ["1", "1"]
        own = fleet.get(name)["metadata"]["uid"].replace("-", "")
        assert fleet.inside(name, "cat /etc/machine-id")[1].strip() == own
        eventually(lambda name=name: macs(fleet, name) == of_status(fleet, name), f"{name} has its own card")
    assert len({fleet.get(name)["metadata"]["uid"] for name in (*names, "then")}) == 3
    assert not of_status(fleet, "copy-1") & of_status(fleet, "copy-2")
    keep(fleet, "copy-1", 7)
    assert kept(fleet, "copy-2") == ["1", "1"]
    assert kept(fleet, "then") == ["1", "1"]

    vm(fleet, "restore", "then", second, "--yes")
    assert kept(fleet, "then") == ["2", "2"]
    fleet.delete("first", kind="vmsnapshot")
    assert kept(fleet, "copy-1") == ["7", "7"], "they do not need the object any more"
    fleet.delete("then")
    eventually(lambda: not fleet.get(second, "vmsnapshot"), "its snapshots go with it")
    assert kept(fleet, "copy-2") == ["1", "1"]
    fleet.delete(*names)
    eventually(lambda: files(fleet) <= before, "nothing is left of them")


def test_what_cannot_be_restored_is_refused_in_words(fleet: Fleet) -> None:
    fleet.machine("refused", disks=[DISK])
    fleet.machine("another", disks=[DISK], runStrategy="Halted")
    fleet.wait_ready("refused")
    fleet.patch("refused", {"runStrategy": "Halted"})
    fleet.wait_status("refused", "Stopped")
    refusal = refused(fleet, "VMSnapshot", "x", {"virtualMachine": "refused", "excludeDisks": ["root"]})
    assert "root" in refusal
    assert "data" in refusal
    vm(fleet, "snapshot", "refused", "off")
    assert fleet.status("off", "vmsnapshot")["indications"] == ["Offline"]
    wrong = {"snapshot": "off", "target": {"virtualMachine": "another"}}
    assert "refused" in refused(fleet, "VMRestore", "y", wrong)
    both = {"snapshot": "off", "target": {"virtualMachine": "refused", "newVirtualMachines": {"namePrefix": "z"}}}
    assert "exactly one" in refused(fleet, "VMRestore", "y", both)
    taken = {"snapshot": "off", "target": {"newVirtualMachines": {"namePrefix": "taken"}}}
    fleet.machine("taken-1", disks=[DISK], runStrategy="Halted")
    assert "taken-1" in refused(fleet, "VMRestore", "y", taken)
    assert "VMSnapshot" in refused(fleet, "VMSnapshot", "off", {"virtualMachine": "another"})
    fleet.delete("refused", "another", "taken-1")


def refused(fleet: Fleet, kind: str, name: str, spec: dict[str, Any]) -> str:
    """Apply what is to be refused, and return what kubectl says."""
    manifest = {"apiVersion": "virtfleet.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    done = fleet.cluster.kubectl.attempt("apply", "-f", "-", stdin=json.dumps(manifest))
    assert done.returncode != 0, done.stdout
    return str(done.stderr)


def listed(fleet: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(fleet.cluster.kubectl.run("get", "vmsnapshot", "-o", "json"))["items"]
    return found
