"""Volumes of Kubernetes': waited for, attached by their claims, and never touched by what is done to disks in pools."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from machine_simulator import Node, converge, source_of
from machine_strategies import OTHERS, limits, machines, volumes
from virtfleet_api.machine import BlankSource, IoLimits, Machine, MachineDisk, Run, VolumeSource
from virtfleet_api.report import Phase
from virtfleet_api.virtual_machine import DiskBus
from virtfleet_node.core.actions import AttachDisk, PrepareVolume, ResizeDisk, Start
from virtfleet_node.core.changed import changed_fields, held_disks
from virtfleet_node.core.desired.disks import parse_volume_alias
from virtfleet_node.core.desired.io_tune import build_tuning, effective
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import HOLDS_AFTER, DomainState
from virtfleet_node.core.plan import plan
from virtfleet_node.core.plan_volumes import LOOK_FOR_VOLUMES
from virtfleet_node.core.record import new_stored, with_desired
from virtfleet_node.core.report import build_report
from virtfleet_node.core.volumes import MIB, SeenVolume, claim_key, file_size

running = machines.filter(lambda m: m.run is Run.RUNNING)
with_volumes = running.filter(lambda m: m.hardware.volumes)


def with_disks(desired: Machine, changed: tuple[MachineDisk, ...]) -> Machine:
    return desired.model_copy(update={"hardware": desired.hardware.model_copy(update={"disks": changed})})


def put(node: Node, desired: Machine) -> None:
    assert node.stored is not None
    node.stored = with_desired(node.stored, desired)


def fresh(desired: Machine) -> Node:
    return Node(stored=new_stored(desired), state=DomainState.OFF)


def claims(desired: Machine) -> dict[str, str]:
    return {disk.name: claim_key(source_of(disk)) for disk in desired.hardware.volumes}


@given(with_volumes)
def test_a_start_waits_for_volumes_and_says_so(desired: Machine) -> None:
    node = fresh(desired)
    converge(node, desired)
    node = fresh(desired)
    node.disks = {(disk.pool, disk.name) for disk in desired.hardware.own_disks}
    node.kubelet = 1000
    for _ in range(3):
        wanted = node.plan(desired)
        assert not any(isinstance(action, Start | PrepareVolume) for action in wanted.actions)
        assert wanted.wake_at == node.now + LOOK_FOR_VOLUMES
        node.now = wanted.wake_at
    report = build_report(desired, node.observe(desired), GuestFacts(), node.now)
    assert (report.phase, report.reason) == (Phase.PROVISIONING, "VolumeMissing")
    for disk in desired.hardware.volumes:
        said = f"Waiting for the volume of the claim {source_of(disk).claim} to be mounted on this node."
        assert said in report.message
    node.kubelet = 0
    converge(node, desired)
    assert node.starts == 1


@given(with_volumes)
def test_a_volume_that_cannot_be_used_is_told_of_and_never_given_to_a_guest(desired: Machine) -> None:
    node = fresh(desired)
    node.disks = {(disk.pool, disk.name) for disk in desired.hardware.own_disks}
    first = desired.hardware.volumes[0].name
    seen = node.observe(desired)
    hostile = SeenVolume(Path("/kubelet/disk.img"), is_made=True, problem="disk.img is a symbolic link.")
    seen = replace(seen, volumes={**seen.volumes, first: hostile})
    assert plan(desired, seen, node.now).actions == ()
    report = build_report(desired, seen, GuestFacts(), node.now)
    assert (report.phase, report.reason, report.message) == (
        Phase.PROVISIONING,
        "VolumeMissing",
        "disk.img is a symbolic link.",
    )
    active = replace(seen, domain=replace(seen.domain, state=DomainState.RUNNING))
    attached = [step for step in plan(desired, active, node.now).actions if isinstance(step, AttachDisk)]
    assert first not in {step.disk.name for step in attached}


@given(running, volumes, st.integers(0, 4), st.booleans())
def test_volumes_of_a_running_guest_follow_the_document_without_a_restart(
    desired: Machine,
    changed: tuple[MachineDisk, ...],
    late: int,
    deaf: bool,  # noqa: FBT001 -- drawn
) -> None:
    node = fresh(desired)
    converge(node, desired)
    node.deaf, node.kubelet = deaf, late
    before = claims(desired)
    asked = with_disks(desired, (*desired.hardware.own_disks, *changed, *desired.hardware.drives))
    put(node, asked)
    converge(node, asked)
    node.kubelet = 0
    converge(node, asked)
    wanted = claims(asked)
    assert {name: claim for name, (claim, _) in node.volumes.items()} == (wanted | before if deaf else wanted)
    assert node.starts == 1
    node.pass_time(HOLDS_AFTER.total_seconds())
    observed = node.observe(asked)
    held = {name for name, claim in before.items() if wanted.get(name) != claim} if deaf else set()
    assert set(held_disks(asked.hardware, observed, node.now)) == held
    replaced = {f"disks[{name}]" for name in held & set(wanted)}
    assert set(changed_fields(desired.hardware, asked.hardware, observed)) == replaced


@given(with_volumes, st.booleans())
def test_another_pod_or_size_changes_nothing_of_a_running_guest(
    desired: Machine,
    gone: bool,  # noqa: FBT001 -- drawn
) -> None:
    node = fresh(desired)
    converge(node, desired)
    done = len(node.done)
    pod = {"pod_uid": None, "volume": None} if gone else {"pod_uid": OTHERS[0]}
    moved = tuple(
        disk.model_copy(update={"source": source_of(disk).model_copy(update=pod), "size_bytes": 1 << 40})
        if disk.is_volume
        else disk
        for disk in desired.hardware.disks
    )
    asked = with_disks(desired, moved)
    put(node, asked)
    node.kubelet = 1000 if gone else 0
    assert node.plan(asked).actions == ()
    assert node.plan(asked).wake_at is None or node.now < node.plan(asked).wake_at
    assert len(node.done) == done
    report = build_report(asked, node.observe(asked), GuestFacts(), node.now)
    assert (report.phase, report.reason, report.restart_required) == (Phase.RUNNING, "", ())


@given(with_volumes, st.lists(limits, min_size=2, max_size=2))
def test_limits_of_volumes_follow_the_document_and_nothing_is_resized(
    desired: Machine, changed: list[IoLimits | None]
) -> None:
    node = fresh(desired)
    converge(node, desired)
    limited = tuple(
        disk.model_copy(update={"limits": new, "size_bytes": 1 << 40})
        for disk, new in zip(desired.hardware.volumes, changed, strict=False)
    )
    asked = with_disks(desired, limited)
    put(node, asked)
    assert not any(isinstance(action, ResizeDisk) for action in node.plan(asked).actions)
    converge(node, asked)
    assert {name: tuning for name, (_, tuning) in node.volumes.items()} == {
        disk.name: effective(build_tuning(disk)) for disk in limited
    }
    assert node.starts == 1


@given(with_volumes, st.booleans())
def test_a_disk_in_a_pool_and_a_volume_take_each_others_names(
    desired: Machine,
    back: bool,  # noqa: FBT001 -- drawn
) -> None:
    blank = tuple(
        disk.model_copy(update={"source": BlankSource(), "size_bytes": 1 << 20}) if disk.is_volume else disk
        for disk in desired.hardware.disks
    )
    first, second = (desired, with_disks(desired, blank)) if back else (with_disks(desired, blank), desired)
    node = fresh(first)
    converge(node, first)
    put(node, second)
    converge(node, second)
    names = {disk.name for disk in desired.hardware.volumes}
    assert set(node.volumes) == (set() if back else names)
    assert {("default", name) for name in names} <= node.disks
    assert {("default", name) for name in names} & set(node.tuning) == ({("default", n) for n in names if back})
    assert node.starts == 1


@given(with_volumes)
def test_what_only_a_start_changes_waits_for_it(desired: Machine) -> None:
    node = fresh(desired)
    converge(node, desired)
    moved = tuple(
        disk.model_copy(update={"bus": DiskBus.SATA}) if disk.is_volume else disk for disk in desired.hardware.disks
    )
    asked = with_disks(desired, moved)
    put(node, asked)
    converge(node, asked)
    waits = changed_fields(desired.hardware, asked.hardware, node.observe(asked))
    assert waits == tuple(f"disks[{disk.name}].bus" for disk in desired.hardware.volumes)


@given(st.none() | st.integers(1, 1 << 50), st.integers(0, 1 << 50))
def test_the_file_of_a_volume_leaves_room_for_its_file_system(wanted: int | None, free: int) -> None:
    size = file_size(wanted, free)
    assert size <= free * 0.945
    assert size == wanted or size % MIB == 0
    assert size == wanted or size + MIB > free * 0.945 - 1


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True))
def test_a_volume_is_known_by_its_alias(name: str) -> None:
    key = claim_key(VolumeSource(claim="mail"))
    assert parse_volume_alias(f"ua-volume-{key}-{name}") == (name, key)
    assert parse_volume_alias(f"ua-disk-{name}") == ("", "")
