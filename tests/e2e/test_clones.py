"""Clones as a user makes them: `kubectl vm clone`, of a machine that runs and of one that is off."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from lxml import etree

from fleet import Fleet, eventually
from virtfleet_dev.paths import program
from virtfleet_dev.process import Program


def vm(fleet: Fleet, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [program("kubectl-vm"), "--kubeconfig", fleet.cluster.control_plane.kubeconfig, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def identity(fleet: Fleet, found: dict[str, Any]) -> set[str]:
    """Return all that tells a machine from every other, from libvirt itself."""
    uid = found["metadata"]["uid"]
    node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])
    xml = etree.fromstring(fleet.domain_xml(node, uid))
    return {
        xml.findtext("uuid"),
        xml.findtext("name"),
        *xml.xpath("devices/interface/mac/@address"),
        *xml.xpath("devices/disk/source/@file"),
    }


def test_a_clone_of_a_running_machine_has_nothing_of_its_own_in_common_with_it(fleet: Fleet) -> None:
    fleet.image("clone-base")
    userdata = "#!/bin/sh\necho $(hostname) $(cat /mnt/meta-data)\n"
    disk = {"name": "root", "source": {"image": {"name": "clone-base"}}}
    networks = [{"name": "eth0", "user": {}, "macAddress": "52:54:00:aa:bb:cc"}]
    fleet.machine("first", kernelBoot=None, disks=[disk], networks=networks, cloudInit={"userData": userdata})
    first = fleet.wait_ready("first")

    shown = vm(fleet, "clone", "first", "second", "--dry-run", "-o", "json")
    assert json.loads(shown.stdout)["spec"]["disks"][0]["source"] == {
        "disk": {"virtualMachine": "first", "name": "root"}
    }
    assert "server dry run" in vm(fleet, "clone", "first", "second", "--dry-run=server").stdout
    assert not fleet.get("second")
    done = vm(fleet, "clone", "first", "second", "--wait")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("virtualmachine.virtfleet.io/second created\n")
    second = fleet.wait_ready("second")
    assert second["status"]["nodeName"] == first["status"]["nodeName"]
    assert not identity(fleet, first) & identity(fleet, second)
    said = f'USERDATA second {{"instance-id": "{second["metadata"]["uid"]}"'
    eventually(lambda: said in vm(fleet, "console", "second", "--history").stdout, "cloud-init begins anew")
    assert fleet.wait_ready("first")["status"]["machine"]["startedAt"] == first["status"]["machine"]["startedAt"]
    assert "backing" not in second["status"]["disks"][0]
    assert vm(fleet, "clone", "first", "second").stderr.strip().endswith("already exists")
    fleet.delete("first")
    assert fleet.wait_ready("second")["status"]["machine"]["startedAt"] == second["status"]["machine"]["startedAt"]
    fleet.delete("second")
    fleet.delete("clone-base", kind="vmimage")


def test_a_clone_of_a_machine_that_is_off_keeps_its_image_until_it_is_made_independent(fleet: Fleet) -> None:
    fleet.image("linked-base")
    disk = {"name": "root", "source": {"image": {"name": "linked-base"}}}
    fleet.machine("model", kernelBoot=None, disks=[disk])
    fleet.wait_ready("model")
    assert vm(fleet, "stop", "model", "--force", "--wait").returncode == 0
    done = vm(fleet, "clone", "model", "copy", "--no-start", "--wait")
    assert (done.returncode, fleet.status("copy")["printableStatus"]) == (0, "Stopped"), done.stderr
    uid = fleet.get("linked-base", "vmimage")["metadata"]["uid"]
    assert eventually(lambda: fleet.status("copy").get("disks"), "the copy is there")[0]["backing"] == uid
    fleet.delete("model")
    refused = fleet.cluster.kubectl.attempt("delete", "vmimage", "linked-base", "--wait=false")
    assert "default/copy" in refused.stderr
    assert fleet.status("linked-base", "vmimage")["users"] == ["default/copy"]
    assert vm(fleet, "start", "copy", "--wait").returncode == 0
    (root,) = fleet.get("copy")["spec"]["disks"]
    fleet.patch("copy", {"disks": [{**root, "source": {**root["source"], "clone": "Full"}}]})
    eventually(lambda: "backing" not in fleet.status("copy")["disks"][0], "the disk needs its image no more")
    assert fleet.condition("copy", "RestartRequired").get("status") != "True"
    fleet.delete("linked-base", kind="vmimage")
    assert vm(fleet, "restart", "copy", "--wait").returncode == 0
    fleet.delete("copy")


def test_a_clone_waits_for_its_source_and_says_so(fleet: Fleet) -> None:
    fleet.machine("waiter", disks=[{"name": "root", "source": {"disk": {"virtualMachine": "nobody", "name": "root"}}}])
    ready = eventually(lambda: fleet.condition("waiter", "Ready"), "a reason")
    assert (ready["reason"], "'nobody'" in ready["message"]) == ("SourceNotFound", True)
    fleet.delete("waiter")


def test_a_daemon_that_is_killed_while_it_copies_leaves_nothing_behind(fleet: Fleet) -> None:
    data = {"name": "data", "size": "1Gi", "source": {"blank": {}}}
    fleet.machine("bulky", disks=[data], terminationGracePeriodSeconds=0)
    found = fleet.wait_ready("bulky")
    node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])
    assert vm(fleet, "stop", "bulky", "--force", "--wait").returncode == 0
    (path,) = [p for p in fleet.pool(node) if found["metadata"]["uid"] in str(p)]
    command = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 600M", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert vm(fleet, "clone", "bulky", "slim", "--no-start").returncode == 0

    def partial() -> list[Path]:
        return [p for p in fleet.pool(node) if p.suffix == ".partial" and p.stat().st_blocks * 512 > 20 << 20]

    eventually(partial, "the copy is under way")
    kill(fleet.cluster.daemon(node))
    fleet.wait_status("slim", "Stopped")
    made = eventually(lambda: [p for p in fleet.pool(node) if p.name == "data.qcow2" and p != path], "the copy")
    assert [p for p in fleet.pool(node) if p not in (path, *made)] == []
    assert "Images are identical" in compare(path, made[0])
    fleet.delete("slim", "bulky")
    assert fleet.pool(node) == []


def kill(program: Program) -> None:
    os.kill(eventually(lambda: program.inner_pid, f"{program.name} runs"), signal.SIGKILL)


def compare(one: Path, other: Path) -> str:
    done = subprocess.run(["qemu-img", "compare", "-U", one, other], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
