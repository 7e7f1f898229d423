"""Disks that are PersistentVolumeClaims: their pods, what a node is told, what is waited for, and what is refused."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from virtfleet_api.machine import Machine, Run, VolumeMode, VolumeSource
from virtfleet_api.report import MachineReport, Phase
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_image import VMImage
from virtfleet_api.vm_restore import VMRestore
from virtfleet_api.vm_snapshot import SnapshotMode, VMSnapshot
from virtfleet_api.vm_snapshot_schedule import VMSnapshotSchedule
from virtfleet_operator.core.admission import review_write
from virtfleet_operator.core.compile import compile_deletion, compile_machine
from virtfleet_operator.core.disk_sizes import disk_sizes, missing_sizes
from virtfleet_operator.core.effective import Sizing
from virtfleet_operator.core.holder import Holder, holder_body, obstacle
from virtfleet_operator.core.image_origins import find_image_origin
from virtfleet_operator.core.place import Candidate, Need, Placed, Unschedulable, place
from virtfleet_operator.core.restores import before_object, machine_object
from virtfleet_operator.core.schedule import snapshot_object
from virtfleet_operator.core.sources import find_sources
from virtfleet_operator.core.summarise.facts import MachineFacts, word_of
from virtfleet_operator.core.summarise.machine_conditions import machine_says
from virtfleet_operator.core.validate.vm_restore import target_problems
from virtfleet_operator.core.verdict import Invalid, Waiting
from virtfleet_operator.core.volumes import (
    Claim,
    HolderPlan,
    build_holders,
    has_let_go,
    pending,
    plan_holders,
    read_claim,
    shall_hold,
    volumes_disabled,
    with_volumes,
)

UID = "11111111-2222-3333-4444-555555555555"
IMAGE = "registry.example/holder:1"
SIZE = Sizing(1, 1, 1, "host-model", 1 << 30)
GIB = 1 << 30
ROOT = {"name": "root", "size": "1Gi", "source": {"blank": {}}}
DATA = {"name": "data", "source": {"pvc": {"claimName": "database"}}}
CLAIMS = {"data": Claim("database", VolumeMode.FILESYSTEM, 2 * GIB, "pv-1")}
Make = Callable[..., VirtualMachine]
Body = dict[str, Any]


@pytest.fixture
def vm(machine: Make) -> VirtualMachine:
    return machine(disks=[ROOT, DATA])


@pytest.fixture
def document(vm: VirtualMachine, objects: Any) -> Machine:
    made = compile_machine(vm, SIZE, objects, None)
    assert isinstance(made, Machine)
    return made


@pytest.fixture
def holder(vm: VirtualMachine) -> Holder:
    (made,) = build_holders(vm, CLAIMS, "node-a")
    return made


def created(holder: Holder, now: datetime, **status: Any) -> Body:
    """Return a pod as the API server has it."""
    pod = holder_body(holder, IMAGE)
    pod["metadata"] |= {"uid": UID.replace("1", "c"), "creationTimestamp": now.isoformat()}
    return {**pod, "status": status}


def running(holder: Holder, now: datetime) -> Body:
    return created(holder, now, phase="Running", containerStatuses=[{"name": "holder", "ready": True}])


def claim(name: str = "database", spec: Body | None = None, **status: Any) -> Body:
    asked = {"resources": {"requests": {"storage": "1Gi"}}}
    return {"metadata": {"name": name}, "spec": asked | (spec or {}), "status": status}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (claim(), Claim("database", VolumeMode.FILESYSTEM, GIB)),
        (claim(capacity={"storage": "2Gi"}), Claim("database", VolumeMode.FILESYSTEM, 2 * GIB)),
        (claim(capacity={"storage": "1e3"}), Claim("database", VolumeMode.FILESYSTEM, 512)),
        (claim(capacity={"storage": "1500m"}), Claim("database", VolumeMode.FILESYSTEM, None)),
        (
            claim(spec={"volumeMode": "Block", "volumeName": "pv-1"}),
            Claim("database", VolumeMode.BLOCK, None, "pv-1"),
        ),
    ],
    ids=["unbound", "bound", "exponent", "nonsense", "block without a request"],
)
def test_a_claim_is_read(body: Body, found: Claim) -> None:
    if found.mode is VolumeMode.BLOCK:
        body["spec"].pop("resources")
    assert read_claim(body) == found


def test_the_pod_is_one_that_a_restricted_namespace_takes(holder: Holder) -> None:
    spec = holder_body(holder, IMAGE)["spec"]
    (container,) = spec["containers"]
    assert (container["image"], container["imagePullPolicy"]) == (IMAGE, "IfNotPresent")
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65534,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "nodeName"} & spec.keys()


def test_a_file_system_is_mounted_for_reading_and_a_block_volume_is_a_device(vm: VirtualMachine) -> None:
    for mode, field in ((VolumeMode.FILESYSTEM, "volumeMounts"), (VolumeMode.BLOCK, "volumeDevices")):
        (made,) = build_holders(vm, {"data": Claim("database", mode)}, "node-a")
        (container,) = holder_body(made, IMAGE)["spec"]["containers"]
        assert container[field][0]["name"] == "claim"
        assert len({"volumeMounts", "volumeDevices"} & container.keys()) == 1
        assert container.get("volumeMounts", [{"readOnly": True}])[0]["readOnly"] is True


def test_the_node_is_told_of_the_volume_once_its_pod_runs(
    vm: VirtualMachine, document: Machine, holder: Holder, now: datetime
) -> None:
    def source(found: dict[str, Body]) -> VolumeSource:
        root, data = with_volumes(document, CLAIMS, (holder,), found).hardware.disks
        assert root == document.hardware.disks[0]
        assert data.size_bytes == 2 * GIB
        assert isinstance(data.source, VolumeSource)
        return data.source

    waiting = VolumeSource(claim="database")
    assert source({}) == waiting
    assert source({holder.name: created(holder, now, phase="Pending")}) == waiting
    pod = running(holder, now)
    held = source({holder.name: pod})
    assert held == VolumeSource(claim="database", pod_uid=pod["metadata"]["uid"], volume="pv-1")
    assert pending(vm, CLAIMS, (holder,), {holder.name: pod}) is None
    pod["metadata"]["deletionTimestamp"] = now.isoformat()
    assert source({holder.name: pod}) == waiting


def test_a_size_of_the_disk_wins_over_that_of_the_claim(machine: Make, objects: Any) -> None:
    vm = machine(disks=[{**DATA, "size": "1Gi"}])
    document = compile_machine(vm, SIZE, objects, None)
    assert isinstance(document, Machine)
    assert with_volumes(document, CLAIMS, (), {}).hardware.disks[0].size_bytes == GIB


def test_a_pod_with_another_volume_of_that_name_is_not_used(
    vm: VirtualMachine, document: Machine, holder: Holder, now: datetime
) -> None:
    pod = running(holder, now)
    pod["spec"]["volumes"].append({"name": "pv-1", "emptyDir": {}})
    told = with_volumes(document, CLAIMS, (holder,), {holder.name: pod})
    assert told.hardware.disks[1].source == VolumeSource(claim="database")
    assert pending(vm, CLAIMS, (holder,), {holder.name: pod}) is not None


def test_a_pod_that_is_not_ours_is_named(vm: VirtualMachine, holder: Holder, now: datetime) -> None:
    pod = running(holder, now)
    pod["metadata"]["ownerReferences"] = []
    waiting = pending(vm, CLAIMS, (holder,), {holder.name: pod})
    assert waiting == Waiting(
        "VolumePending",
        f"spec.disks[1].source.pvc: pod {holder.name} is not one that virtfleet made to hold PersistentVolumeClaim "
        "'database': delete it",
        watched=False,
    )
    assert plan_holders((holder,), {holder.name: pod}, IMAGE, now).delete == ()


UNSCHEDULED = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available:\n1 too full"}
NO_IMAGE = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({}, "it is being started"),
        ({"conditions": [UNSCHEDULED]}, "0/1 nodes are available: 1 too full"),
        ({"containerStatuses": [{"name": "holder", "state": NO_IMAGE}]}, "ImagePullBackOff: Back-off pulling image"),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on disk"}, "it has ended: Evicted: low on disk"),
    ],
)
def test_what_kubernetes_says_is_repeated(holder: Holder, now: datetime, status: Body, says: str) -> None:
    assert obstacle(created(holder, now, **status)) == says


def test_pods_are_made_once_and_those_of_no_use_are_deleted(vm: VirtualMachine, holder: Holder, now: datetime) -> None:
    assert plan_holders((holder,), {}, IMAGE, now).create == (holder,)
    pods = {holder.name: created(holder, now)}
    plan = plan_holders((holder,), pods, IMAGE, now)
    assert (plan.create, plan.delete, plan.look_again) == ((), (), False)
    (elsewhere,) = build_holders(vm, CLAIMS, "node-b")
    plan = plan_holders((elsewhere,), pods, IMAGE, now)
    assert (plan.create, plan.delete, plan.surplus) == ((elsewhere,), (), (holder.name,))
    pods[holder.name]["metadata"]["deletionTimestamp"] = now.isoformat()
    assert plan_holders((), pods, IMAGE, now) == HolderPlan()


def test_a_pod_that_ended_is_made_anew_and_not_again_and_again(holder: Holder, now: datetime) -> None:
    pods = {holder.name: created(holder, now, phase="Failed")}
    early = plan_holders((holder,), pods, IMAGE, now)
    assert (early.create, early.delete, early.look_again) == ((), (), True)
    late = plan_holders((holder,), pods, IMAGE, now + timedelta(seconds=10))
    assert (late.create, late.delete) == ((), (holder.name,))


def test_another_image_replaces_only_pods_that_do_not_run(holder: Holder, now: datetime) -> None:
    waiting = {holder.name: created(holder, now, phase="Pending")}
    assert plan_holders((holder,), waiting, "another", now).delete == (holder.name,)
    assert plan_holders((holder,), {holder.name: running(holder, now)}, "another", now).delete == ()


@pytest.mark.parametrize(
    ("run", "generation", "phase", "heard", "holds"),
    [
        (Run.RUNNING, 3, None, True, True),
        (Run.PAUSED, 3, Phase.STOPPED, True, True),
        (Run.STOPPED, 3, Phase.RUNNING, True, True),
        (Run.STOPPED, 3, Phase.STOPPING, True, True),
        (Run.STOPPED, 3, Phase.STOPPED, True, False),
        (Run.STOPPED, 4, Phase.STOPPED, True, None),
        (Run.STOPPED, 3, Phase.STOPPED, False, None),
        (Run.STOPPED, 3, None, True, False),
        (Run.STOPPED, 3, None, False, None),
    ],
)
def test_claims_are_held_while_a_guest_is_or_may_be_on(
    run: Run, generation: int, phase: Phase | None, *, heard: bool, holds: bool | None
) -> None:
    report = MachineReport(uid=UID, namespace="shop", name="web-1", phase=phase, generation=3) if phase else None
    assert shall_hold(run, generation, report, heard=heard) is holds


@pytest.mark.parametrize(
    ("generation", "report", "gone"),
    [
        (3, {}, True),
        (4, {}, False),
        (3, {"held_disks": ("data",)}, False),
        (3, {"restart_required": ("disks[data]",)}, False),
        (4, {"phase": Phase.STOPPED}, True),
    ],
)
def test_a_guest_has_let_go_once_its_node_does_not_say_otherwise(generation: int, report: Body, *, gone: bool) -> None:
    told = {"uid": UID, "namespace": "shop", "name": "web-1", "phase": Phase.RUNNING, "generation": 3, **report}
    assert has_let_go(generation, MachineReport(**told)) is gone


def test_a_machine_that_is_off_does_not_mind_that_volumes_are_disabled(machine: Make) -> None:
    assert volumes_disabled(machine(disks=[DATA], runStrategy="Halted")) is None
    assert volumes_disabled(machine(disks=[ROOT])) is None
    waiting = volumes_disabled(machine(disks=[ROOT, DATA]))
    assert waiting
    assert (waiting.reason, waiting.message[:28]) == ("VolumesDisabled", "spec.disks[1].source.pvc: th")


def test_ready_says_what_the_pod_waits_for_until_the_guest_is_on(vm: VirtualMachine) -> None:
    def ready(phase: Phase) -> str:
        report = MachineReport(
            uid=UID, namespace="shop", name="web-1", phase=phase, reason="VolumeMissing", message="?"
        )
        facts = MachineFacts(Waiting("VolumePending", "no room"), "node-a", report=report)
        said = machine_says(word_of(vm.metadata, facts), 3, vm.metadata, facts)
        return next(one.reason for one in said if one.type == "Ready")

    assert ready(Phase.PROVISIONING) == "VolumePending"
    assert ready(Phase.RUNNING) == "Running"


def test_a_volume_is_in_no_pool_and_is_never_kept(vm: VirtualMachine, objects: Any) -> None:
    assert disk_sizes(vm, objects) == missing_sizes(vm, objects) == {"default": GIB}
    removal = compile_deletion(vm, SIZE, objects)
    assert [disk.name for disk in removal.hardware.own_disks] == ["root"]


def test_a_node_that_a_volume_cannot_be_reached_from_takes_no_machine() -> None:
    nodes = [Candidate(name, vcpus=8, memory_bytes=8 * GIB) for name in ("node-a", "node-b")]
    near = Need(1, GIB, unreachable={"database": frozenset({"node-a"})})
    assert place(near, nodes) == Placed("node-b")
    far = Need(1, GIB, unreachable={"database": frozenset({"node-a", "node-b"})})
    assert place(far, nodes) == Unschedulable("0/2 nodes fit: 2 without volume database")


NOT_COPIED = (
    ".name: 'data' is PersistentVolumeClaim 'database', which is not copied: make a claim with dataSource, "
    "or name another disk"
)


def test_a_claim_is_not_copied(machine: Make, vm: VirtualMachine, objects: Any, now: datetime) -> None:
    objects.sources["shop", "web-1"] = vm
    source = {"disk": {"virtualMachine": "web-1", "name": "data"}}
    spec = {
        "memory": {"guest": "1Gi"},
        "disks": [{"name": "data", "source": source}],
    }  # as `kubectl vm clone` writes it
    copy = machine(metadata={"name": "web-2"}, disks=spec["disks"])
    assert find_sources(copy, objects) == Invalid((f"spec.disks[0].source.disk{NOT_COPIED}",))
    body = {"kind": "VirtualMachine", "metadata": {"name": "web-2", "namespace": "shop"}, "spec": spec}
    review = review_write(body, None, objects, now)
    assert review.refusal == Invalid((f"spec.disks[0].source.disk{NOT_COPIED}",))
    image = {"metadata": {"name": "i", "namespace": "shop", "uid": UID}, "spec": {"source": source}}
    waiting = find_image_origin(VMImage.model_validate(image), objects)
    assert waiting == Waiting("SourceNotFound", f"spec.source.disk{NOT_COPIED}")


def snapshot_body(**spec: Any) -> Body:
    meta = {"name": "s", "namespace": "shop", "uid": UID}
    return {"kind": "VMSnapshot", "metadata": meta, "spec": {"virtualMachine": "web-1", **spec}}


def test_a_snapshot_leaves_a_claim_out_and_says_how(vm: VirtualMachine, objects: Any, now: datetime) -> None:
    objects.sources["shop", "web-1"] = vm

    def says(**spec: Any) -> tuple[str, ...]:
        refusal = review_write(snapshot_body(**spec), None, objects, now).refusal
        return refusal.problems if refusal else ()

    assert says(mode="Memory", excludeDisks=["data"]) == (
        (
            "spec.mode: VirtualMachine 'web-1' has disk 'data' on a PersistentVolumeClaim, which cannot be captured "
            "with memory: write mode: Disk"
        ),
    )
    assert says(mode="Disk") == (
        (
            "spec.excludeDisks: disk 'data' of VirtualMachine 'web-1' is on a PersistentVolumeClaim, which is not "
            'captured: write "excludeDisks: [data]"'
        ),
    )
    assert says(mode="Disk", excludeDisks=["data"]) == ()
    assert says(mode="Disk", excludeDisks=["data", "root"]) == (
        "spec.excludeDisks: leaves out every disk: remove one of them",
    )


def test_a_machine_of_claims_alone_holds_no_snapshot(machine: Make, objects: Any, now: datetime) -> None:
    objects.sources["shop", "web-1"] = machine(disks=[DATA])
    refusal = review_write(snapshot_body(mode="Disk", excludeDisks=["data"]), None, objects, now).refusal
    assert refusal == Invalid(
        ("spec.virtualMachine: VirtualMachine 'web-1' has no disk that could hold a snapshot: add one",)
    )


def test_what_makes_snapshots_by_itself_leaves_claims_out(vm: VirtualMachine) -> None:
    schedule = VMSnapshotSchedule.model_validate(
        {
            "metadata": {"name": "daily", "namespace": "shop"},
            "spec": {"schedule": "0 2 * * *", "virtualMachine": "web-1"},
        }
    )
    made = snapshot_object(schedule, vm, datetime(2026, 11, 23, 2, tzinfo=UTC))
    assert made["spec"]["excludeDisks"] == ["data"]
    restore, snapshot = restoring(vm)
    before = before_object(restore, snapshot, vm)["spec"]
    assert before["excludeDisks"] == ["data"]
    assert before.get("mode", "Disk") == SnapshotMode.DISK


def restoring(vm: VirtualMachine, *, memory: bool = True) -> tuple[VMRestore, VMSnapshot]:
    spec = {"snapshot": "s", "target": {"virtualMachine": "web-1"}, "memory": memory}
    status = {
        "phase": "Ready",
        "readyToUse": True,
        "virtualMachineUID": UID,
        "virtualMachineSpec": vm.spec.to_json_dict(),
        "disks": [{"name": "root", "pool": "default", "capacity": "1Gi"}],
        "indications": ["Memory"],
    }
    restore = VMRestore.model_validate({"metadata": {"name": "back", "namespace": "shop", "uid": UID}, "spec": spec})
    return restore, VMSnapshot.model_validate({**snapshot_body(mode="Memory"), "status": status})


def test_a_restore_has_nothing_to_put_back_on_a_claim(vm: VirtualMachine, objects: Any) -> None:
    objects.sources["shop", "web-1"] = vm
    assert target_problems(*restoring(vm), objects) == (
        (
            "spec.memory: VirtualMachine 'web-1' has disk 'data' on a PersistentVolumeClaim, which is not put back: "
            "write memory: false, or remove the disk from the machine"
        ),
    )
    restore, snapshot = restoring(vm, memory=False)
    assert target_problems(restore, snapshot, objects) == ()
    made = machine_object(restore, vm.spec, snapshot, "web-2")
    assert [disk["name"] for disk in made["spec"]["disks"]] == ["root"]
