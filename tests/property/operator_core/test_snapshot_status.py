"""The status of a snapshot settles and fits the CRD, whatever its node says; a schedule's does, too."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import jsonschema
import yaml
from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.base import Model
from virtfleet_api.resource import ObjectMeta, Resource
from virtfleet_api.snapshot import SnapshotReport
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_snapshot import SnapshotIndication, SnapshotPhase, VMSnapshot, VMSnapshotStatus
from virtfleet_api.vm_snapshot_schedule import VMSnapshotSchedule, VMSnapshotScheduleStatus
from virtfleet_operator.core.events import snapshot_events
from virtfleet_operator.core.parse import parse_status
from virtfleet_operator.core.summarise.vm_snapshot import SETTLED, SnapshotFacts, Told, summarise_snapshot
from virtfleet_operator.core.summarise.vm_snapshot_schedule import ScheduleFacts, summarise_schedule

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
CRDS = Path(__file__).parents[3] / "crds"
UID = "11111111-2222-3333-4444-555555555555"

counts = st.integers(-(2**70), 2**70)
disks = st.fixed_dictionaries(
    {"name": st.text(max_size=80), "pool": st.text(max_size=80), "capacity_bytes": counts, "size_bytes": counts}
)
reports = st.fixed_dictionaries(
    {
        "uid": st.just(UID),
        "namespace": st.just("shop"),
        "name": st.just("s"),
        "machine_uid": st.just(UID),
        "phase": st.sampled_from(SnapshotPhase),
        "reason": st.text(max_size=80),
        "message": st.text(max_size=200),
        "progress_percent": st.none() | st.integers(0, 100),
        "created_at": st.none() | st.datetimes() | st.datetimes(timezones=st.timezones()),
        "pause_milliseconds": st.none() | counts,
        "memory_bytes": st.none() | counts,
        "disks": st.lists(disks, max_size=8)
        | st.lists(st.just({"name": "d", "pool": "p", "capacity_bytes": 1}), min_size=70),
        "indications": st.lists(st.sampled_from(SnapshotIndication), max_size=8),
    }
).map(SnapshotReport.model_validate)
tellings = st.from_type(VirtualMachine).map(lambda vm: Told("node-a", UID, vm.spec))
facts = st.builds(
    SnapshotFacts,
    report=st.none() | reports,
    heard=st.booleans(),
    left=st.booleans(),
    machine_gone=st.booleans(),
    parent=st.none() | st.just("older"),
)


@cache
def status_schema(kind: type[Resource]) -> jsonschema.Draft202012Validator:
    crd = yaml.safe_load((CRDS / f"virtfleet.io_{kind.plural}.yaml").read_text(encoding="utf-8"))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return jsonschema.Draft202012Validator(schema)


def assert_storable(kind: type[Resource], status: Model) -> None:
    stored = status.to_json_dict()
    status_schema(kind).validate(stored)
    assert parse_status(kind, {"status": stored}) == status


@given(st.from_type(ObjectMeta), tellings, st.lists(facts, min_size=1, max_size=3))
def test_a_snapshot_status_settles_and_can_be_stored(
    meta: ObjectMeta, told: Told, history: list[SnapshotFacts]
) -> None:
    status = summarise_snapshot(meta, VMSnapshotStatus(), SnapshotFacts(told=told), NOW)
    for known in history:
        before, status = status, summarise_snapshot(meta, status, known, NOW)
        assert summarise_snapshot(meta, status, known, NOW) == status
        assert_storable(VMSnapshot, status)
        assert len({disk.name for disk in status.disks}) == len(status.disks)
        assert status.virtual_machine_spec == told.machine_spec
        assert status.ready_to_use <= (status.phase is SnapshotPhase.READY)
        assert not snapshot_events(status, status)
        if before.phase in SETTLED and known.report is None and meta.deletion_timestamp is None:
            assert status.phase is before.phase, "nothing but its node moves what has ended"


@given(
    st.from_type(ObjectMeta),
    st.builds(
        ScheduleFacts,
        machines=counts,
        snapshots=counts,
        refused=st.none() | st.lists(st.text(max_size=600), max_size=40),
        failed=st.lists(st.text(max_size=600), max_size=40),
    ),
)
def test_a_schedule_status_settles_and_can_be_stored(meta: ObjectMeta, known: ScheduleFacts) -> None:
    status = summarise_schedule(meta, VMSnapshotScheduleStatus(), known, NOW)
    assert summarise_schedule(meta, status, known, NOW) == status
    assert_storable(VMSnapshotSchedule, status)
