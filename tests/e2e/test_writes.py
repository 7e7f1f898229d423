"""How often the operator writes, counted in the API server's audit log, and what it never writes."""

import subprocess
import time

import yaml

from fleet import Fleet, eventually
from virtfleet_api.names import RESTORE_LABEL
from virtfleet_dev.control_plane import Write

IDLE_SECONDS = 60


def writes_to(fleet: Fleet, name: str) -> list[Write]:
    """Return the operator's writes to one machine."""
    return [w for w in by_operator(fleet) if w.resource == "virtualmachines" and w.name == name]


def by_operator(fleet: Fleet) -> list[Write]:
    return [w for w in fleet.cluster.control_plane.writes() if "virtfleet-operator" in w.user]


def test_two_writes_from_create_to_running(fleet: Fleet) -> None:
    fleet.machine("frugal", guestAgent=False)
    fleet.wait_ready("frugal")
    written = writes_to(fleet, "frugal")
    assert [(w.verb, w.subresource) for w in written] == [("patch", ""), ("patch", "status")], written
    fleet.delete("frugal")


def test_an_idle_fleet_costs_no_writes_and_no_diff(fleet: Fleet) -> None:
    manifests = [fleet.machine(f"idle-{n}", guestAgent=False) for n in range(2)]
    for manifest in manifests:
        fleet.wait_ready(manifest["metadata"]["name"])
    before = len([w for w in by_operator(fleet) if w.resource == "virtualmachines"])
    time.sleep(IDLE_SECONDS)  # the silence itself is what is measured
    after = [w for w in by_operator(fleet) if w.resource == "virtualmachines"]
    assert after[before:] == []
    for manifest in manifests:
        done = fleet.cluster.kubectl.attempt("diff", "-f", "-", stdin=yaml.safe_dump(manifest))
        assert done.returncode == 0, done.stdout
    fleet.delete("idle-0", "idle-1")


def test_the_operator_never_writes_what_users_own(fleet: Fleet) -> None:
    fleet.machine("owned", runStrategy="Halted")
    eventually(lambda: fleet.status("owned").get("printableStatus") == "Stopped", "owned is stopped")
    fleet.delete("owned")
    ours = [w for w in by_operator(fleet) if w.resource in {"virtualmachines", "vmimages", "vmclasses"}]
    ours = [w for w in ours if not is_made_by_a_restore(w)]
    assert ours
    for write in ours:
        body = write.body or {}
        assert "spec" not in body, write
        metadata = body.get("metadata", {})
        assert set(metadata) <= {"finalizers", "labels", "resourceVersion", "uid", "name", "namespace"}, write
        assert all(key.startswith("virtfleet.io/") for key in metadata.get("labels", {})), write


def is_made_by_a_restore(write: Write) -> bool:
    """Tell whether a machine was made because a VMRestore asks for it; afterwards it is its user's."""
    labels = (write.body or {}).get("metadata", {}).get("labels", {})
    return write.verb == "create" and write.resource == "virtualmachines" and RESTORE_LABEL in labels


def test_get_vm_has_the_promised_columns(fleet: Fleet) -> None:
    fleet.machine("columns")
    fleet.wait_ready("columns")
    header = fleet.cluster.kubectl.run("get", "vm").splitlines()[0].split()
    assert header == ["NAME", "STATUS", "READY", "NODE", "IP", "VCPU", "MEMORY", "AGE"]
    done = subprocess.run(
        [fleet.cluster.kubectl.binary, "--kubeconfig", fleet.cluster.kubectl.kubeconfig, "get", "all"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "virtualmachine.virtfleet.io/columns" in done.stdout
    fleet.delete("columns")
