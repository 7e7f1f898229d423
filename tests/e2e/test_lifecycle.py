"""A machine's whole life, as its user sees it: a real API server, a real libvirtd, a real guest."""

import subprocess
from pathlib import Path

from fleet import Fleet, eventually
from virtfleet_dev.cluster import Cluster
from virtfleet_dev.paths import program


def vm(cluster: Cluster, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [program("kubectl-vm"), "--kubeconfig", cluster.control_plane.kubeconfig, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def node_of(fleet: Fleet, status: dict) -> object:
    return next(n for n in fleet.cluster.nodes if n.name == status["nodeName"])


def test_a_machine_lives_and_leaves_nothing(fleet: Fleet) -> None:
    cluster = fleet.cluster
    fleet.image("lifecycle")
    disk = {"name": "root", "source": {"image": {"name": "lifecycle"}}}
    networks = [{"name": "eth0", "user": {}}]
    fleet.machine("life", kernelBoot=None, disks=[disk], networks=networks, terminationGracePeriodSeconds=20)

    cluster.kubectl.run("wait", "--for=condition=Ready", "vm/life", "--timeout=120s")
    found = fleet.wait_ready("life")
    uid, status = found["metadata"]["uid"], found["status"]
    node = node_of(fleet, status)
    assert fleet.domains(node)[uid]
    assert status["machine"]["uuid"] == uid
    assert status["disks"][0]["backing"]
    assert [row.split()[:2] for row in cluster.kubectl.run("get", "vm", "life").splitlines()] == [
        ["NAME", "STATUS"],
        ["life", "Running"],
    ]

    eventually(lambda: "READY host=" in vm(cluster, "console", "life", "--history").stdout, "the console shows READY")
    eventually(lambda: fleet.condition("life", "AgentConnected").get("status") == "True", "the agent is connected")
    eventually(lambda: fleet.status("life")["interfaces"][0].get("ipAddresses"), "the guest has an address")

    fleet.patch("life", {"memory": {"guest": "192Mi"}})
    waits = eventually(lambda: (c := fleet.condition("life", "RestartRequired")).get("status") == "True" and c, "edit")
    assert "memory.guest" in waits["message"]

    done = vm(cluster, "stop", "life", "--wait")
    assert done.returncode == 0, done.stderr
    assert fleet.status("life")["printableStatus"] == "Stopped"
    assert not fleet.domains(node)[uid]

    done = vm(cluster, "start", "life", "--wait")
    assert done.returncode == 0, done.stderr
    assert fleet.wait_ready("life")["status"]["machine"]["memory"]["current"] == "192Mi"
    assert fleet.condition("life", "RestartRequired").get("status") != "True"

    fleet.give_no_time("life")
    fleet.delete("life")
    assert uid not in fleet.domains(node)
    assert not [p for p in fleet.pool(node) if uid in str(p)]
    assert not list((node.directory / "virtfleet" / "machines").glob(f"{uid}*"))
    assert not any(uid in line for line in node.run("ps", "-eo", "args").splitlines())
    fleet.delete("lifecycle", kind="vmimage")


def test_pause_and_resume(fleet: Fleet) -> None:
    fleet.machine("pausing")
    fleet.wait_ready("pausing")
    assert vm(fleet.cluster, "pause", "pausing", "--wait").returncode == 0
    assert fleet.wait_status("pausing", "Paused")
    assert fleet.condition("pausing", "Ready")["status"] == "False"
    assert vm(fleet.cluster, "resume", "pausing", "--wait").returncode == 0
    fleet.wait_ready("pausing")
    fleet.delete("pausing")


def test_restart_starts_a_new_guest(fleet: Fleet) -> None:
    fleet.machine("again")
    before = fleet.wait_ready("again")["status"]["machine"]["startedAt"]
    done = vm(fleet.cluster, "restart", "again", "--wait")
    assert done.returncode == 0, done.stderr
    eventually(lambda: fleet.status("again")["machine"]["startedAt"] > before, "a new start")
    fleet.wait_ready("again")
    fleet.delete("again")


def test_qemu_killed_comes_back_under_always_and_not_under_once(fleet: Fleet) -> None:
    for name, strategy in (("phoenix", "Always"), ("mayfly", "Once")):
        fleet.machine(name, runStrategy=strategy)
    uids = {name: fleet.wait_ready(name)["metadata"]["uid"] for name in ("phoenix", "mayfly")}
    before = fleet.status("phoenix")["machine"]["startedAt"]
    for node in fleet.cluster.nodes:
        for pid in node.pids("qemu-system-x86"):
            arguments = Path(f"/proc/{pid}/cmdline").read_text()
            if any(uid in arguments for uid in uids.values()):
                subprocess.run(["kill", "-9", str(pid)], check=True)
    eventually(lambda: fleet.status("phoenix")["machine"]["startedAt"] > before, "phoenix was started again")
    fleet.wait_ready("phoenix")
    fleet.wait_status("mayfly", "Crashed")
    fleet.delete("phoenix", "mayfly")


def test_ten_machines_are_spread_and_none_runs_twice(fleet: Fleet) -> None:
    names = [f"many-{n}" for n in range(10)]
    for name in names:
        fleet.machine(name, memory={"guest": "96Mi"})
    for name in names:
        fleet.wait_ready(name)
    placed = [fleet.status(name)["nodeName"] for name in names]
    assert sorted(placed.count(node.name) for node in fleet.cluster.nodes) == [5, 5]
    running = fleet.running()
    assert len(running) == len(set(running))
    assert {fleet.get(name)["metadata"]["uid"] for name in names} <= set(running)
    fleet.delete(*names)
