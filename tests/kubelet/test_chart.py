"""The chart on a real kubelet: guests belong to the host, and whatever becomes of the pods, they run on.

On this machine all of it is real: API server, kubelet, containerd, libvirtd, QEMU.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charted import CHART, DAEMON, MACHINE, NAMESPACE, OPERATOR, Charted
from fleet import eventually
from virtfleet_dev.kubectl import Kubectl
from virtfleet_dev.paths import checkout

TAKEOVER_SECONDS = 20.0
Timed = Callable[[str], Any]

local_rig = pytest.mark.local_rig


def test_a_machine_runs_and_its_console_is_shown_by_the_daemons_pod(charted: Charted) -> None:
    assert charted.fleet.status(MACHINE)["printableStatus"] == "Running"
    eventually(lambda: "READY" in charted.console(), "the console shows READY")
    ports = charted.kubectl.run("-n", NAMESPACE, "get", "endpoints", "virtfleet-subresources", "-o", "yaml")
    leader = charted.kubectl.get("pod", charted.leader_pod(), NAMESPACE) or {}
    assert leader["status"]["podIP"] in ports


def test_the_charts_own_tests_pass(charted: Charted) -> None:
    said = charted.helm("test", "virtfleet")
    assert "Succeeded" in said
    assert "TEST SUITE:     None" not in said


@pytest.mark.parametrize(("part", "workload"), [("node", DAEMON), ("operator", OPERATOR)])
def test_pods_are_deleted_and_the_guest_runs_on(charted: Charted, part: str, workload: str) -> None:
    before, pods = charted.life(), charted.pod_names(part)
    charted.kubectl.run("-n", NAMESPACE, "delete", "pod", *pods, "--timeout=60s")
    charted.rolled_out(workload)
    assert charted.pod_names(part).isdisjoint(pods)
    assert charted.life() == before
    eventually(lambda: "READY" in charted.console(), "the console is shown by the new pods")


@local_rig
def test_kubelet_and_containerd_are_killed_and_the_guest_runs_on(charted: Charted) -> None:
    before, up, pods = charted.life(), charted.uptime(), charted.pod_names()
    node = charted.local.pod_node
    for program in (node.kubelet, node.containerd):
        pid = program.inner_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda program=program, pid=pid: program.inner_pid not in (None, pid), f"{program.name} is back")
    eventually(node.containerd_answers, "containerd answers")
    charted.kubelet_knows_pods()
    for workload in (DAEMON, OPERATOR):
        charted.rolled_out(workload)
    assert charted.pod_names() == pods
    assert charted.life() == before
    assert charted.uptime() > up


def test_the_daemons_account_may_do_nothing(charted: Charted, tmp_path: Path) -> None:
    account = charted.kubectl.get("serviceaccount", "virtfleet-node", NAMESPACE) or {}
    assert account["automountServiceAccountToken"] is False
    inside = ("-n", NAMESPACE, "exec", DAEMON, "--", "ls", "/var/run/secrets")
    assert charted.kubectl.run(*inside).split() == ["enrol.virtfleet.io"]
    with charted.bearer(charted.token(), tmp_path) as daemon:
        assert "virtfleet-node" in daemon.attempt("get", "secrets").stderr  # it is known, and refused
        for resource in ("secrets", "configmaps", "pods", "nodes", "leases", "vms", "vmnodes", "vmdisks", "vmimages"):
            for verb in ("get", "list"):
                refused(daemon, verb, resource)
        manifest = (checkout() / "examples" / "quickstart.yaml").read_text()
        refusals = daemon.attempt("create", "--validate=false", "-f", "-", stdin=manifest)
        assert refusals.stderr.count("Forbidden") == manifest.count("\nkind: "), refusals
        assert "orbidden" in daemon.attempt("create", "configmap", "mine", "-n", NAMESPACE).stderr


def refused(user: Kubectl, verb: str, resource: str) -> None:
    words = {"get": ("get", resource, "virtfleet-ca", "-n", NAMESPACE), "list": ("get", resource, "-n", NAMESPACE)}
    done = user.attempt(*words[verb])
    assert done.returncode != 0, done.stdout
    assert "(Forbidden)" in done.stderr, done.stderr
    assert f"cannot {verb} resource" in done.stderr, done.stderr


def test_the_token_for_enrolment_is_good_for_nothing_else(charted: Charted, tmp_path: Path) -> None:
    shown = ("-n", NAMESPACE, "exec", DAEMON, "--", "cat", "/var/run/secrets/enrol.virtfleet.io/token")
    with charted.bearer(charted.kubectl.run(*shown).strip(), tmp_path) as daemon:
        done = daemon.attempt("get", "--raw", "/api")
        assert done.returncode != 0
        assert "Unauthorized" in done.stderr or "must be logged in" in done.stderr, done.stderr
    with charted.bearer(charted.token(), tmp_path) as daemon:
        assert daemon.attempt("get", "--raw", "/api").returncode == 0  # so it is the audience that is refused


@local_rig
def test_a_killed_leader_leads_again_in_a_higher_epoch(charted: Charted, time_of: Timed) -> None:
    before, lease = charted.life(), charted.lease()
    os.kill(charted.process_of(charted.leader_pod()), signal.SIGKILL)
    with time_of("leader killed, led again"):
        later = lambda: charted.lease()["leaseTransitions"] > lease["leaseTransitions"]  # noqa: E731
        eventually(later, "somebody leads", TAKEOVER_SECONDS)
    charted.rolled_out(OPERATOR)
    assert charted.life() == before


@local_rig
def test_a_leader_that_stays_away_is_followed_and_nothing_is_done_twice(charted: Charted, time_of: Timed) -> None:
    before, lease, pod = charted.life(), charted.lease(), charted.leader_pod()
    kubelet = charted.local.pod_node
    kubelet.kubelet.stop()  # who would start the leader's container again
    try:
        with time_of("leader gone, another leads"):
            os.kill(charted.process_of(pod), signal.SIGKILL)
            killed_at = time.monotonic()
            second(charted)
            eventually(lambda: charted.leader_pod() not in ("", pod), "another leads", TAKEOVER_SECONDS)
        assert time.monotonic() - killed_at < TAKEOVER_SECONDS
        assert charted.lease()["leaseTransitions"] > lease["leaseTransitions"]
        uid = charted.fleet.wait_ready("second")["metadata"]["uid"]
    finally:
        kubelet.up()
    charted.kubelet_knows_pods()
    charted.rolled_out(OPERATOR)
    assert charted.life() == before
    assert len(bindings(charted, MACHINE)) == 1
    assert len(bindings(charted, "second")) == 1
    starts = [line for line in daemon_log(charted).splitlines() if uid in line and "action='start'" in line]
    assert len(starts) == 1, starts
    charted.fleet.delete("second")


def second(charted: Charted) -> None:
    """Apply a machine that nobody has seen while nobody leads; admission answers as soon as somebody does."""
    machine = {
        "apiVersion": "virtfleet.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": "second", "namespace": "default"},
        "spec": {
            "memory": {"guest": "160Mi"},
            "disks": [{"name": "root", "source": {"image": {"name": MACHINE}}}],
        },
    }

    def accepted() -> bool:
        try:
            return bool(charted.kubectl.apply(machine))
        except Exception:  # noqa: BLE001 -- whatever is said while nobody leads
            return False

    eventually(accepted, "the machine is admitted")


def bindings(charted: Charted, name: str) -> list[str]:
    """Return who has bound a machine to a node, from the API server's audit log."""
    found = []
    for write in charted.local.control_plane.writes():
        if write.resource == "virtualmachines" and write.name == name and isinstance(write.body, dict):
            labels = write.body.get("metadata", {}).get("labels") or {}
            found += [write.user] if "virtfleet.io/node" in labels else []
    return found


def daemon_log(charted: Charted) -> str:
    return charted.kubectl.run("-n", NAMESPACE, "logs", DAEMON, "--tail=-1")


def test_the_chart_is_removed_and_installed_again_and_the_guest_runs_on(charted: Charted, time_of: Timed) -> None:
    before = charted.life()
    with time_of("chart removed"):
        charted.uninstall()
    assert charted.kubectl.run("get", "crd", "virtualmachines.virtfleet.io")
    assert charted.fleet.status(MACHINE)["machine"]["startedAt"] == before.started_at
    if charted.pods is not None:
        uid = charted.fleet.get(MACHINE)["metadata"]["uid"]
        assert charted.qemu_pid(uid) == before.pid
        assert charted.uptime() > 0
    with time_of("chart installed again"):
        charted.install()
    assert charted.life() == before
    eventually(lambda: "READY" in charted.console(), "the console is shown again")


def test_upgrade_and_rollback_leave_the_guest_alone(charted: Charted, tmp_path: Path, time_of: Timed) -> None:
    before = charted.life()
    charted.uninstall()
    charted.install(former_chart(tmp_path))
    assert charted.life() == before
    pods = charted.pod_names()
    with time_of("chart upgraded"):
        charted.upgrade(CHART, "later")
    eventually(lambda: charted.pod_names().isdisjoint(pods), "the pods of before are gone")
    assert charted.restarts() == []
    assert charted.life() == before
    with time_of("chart rolled back"):
        charted.rollback()
    assert charted.life() == before
    assert charted.restarts() == []


def former_chart(folder: Path) -> Path:
    """Return the chart of the commit before, or this one where there is none."""
    archive = subprocess.run(
        ["git", "archive", "HEAD~1", "charts/virtfleet"], cwd=checkout(), capture_output=True, check=False
    )
    if archive.returncode:
        return CHART
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder / "charts" / "virtfleet"
