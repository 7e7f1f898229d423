"""Whatever a node says of its restores, a restore ends once and its machines with it."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.report import RestoreReport
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_restore import RestoredMachine, RestorePhase, VMRestoreStatus
from virtfleet_operator.core.restores import ENDED
from virtfleet_operator.core.summarise.vm_restore import (
    MachineView,
    RestoreFacts,
    restored_machine,
    summarise_restore,
)

UID = "bbbbbbbb-2222-3333-4444-555555555555"
META = ObjectMeta.model_validate({"name": "back", "namespace": "shop", "uid": UID, "generation": 1})
AT = datetime(2026, 11, 23, 9, tzinfo=UTC)

REPORTS = st.none() | st.builds(
    RestoreReport,
    token=st.sampled_from([UID, "another"]),
    done=st.booleans(),
    warm=st.booleans(),
    message=st.text(max_size=2000),
)
VIEWS = st.builds(
    MachineView,
    there=st.booleans(),
    node_name=st.none() | st.just("node-1"),
    heard=st.booleans(),
    report=REPORTS,
    obstacle=st.text(max_size=50),
)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(VIEWS, min_size=n, max_size=n), min_size=1, max_size=6)))
def test_a_restore_goes_forward_only(looks: list[list[MachineView]]) -> None:
    status = VMRestoreStatus(machines=tuple(RestoredMachine(name=f"build-{n}") for n in range(len(looks[0]))))
    for step, views in enumerate(looks):
        machines = tuple(restored_machine(m, UID, view) for m, view in zip(status.machines, views, strict=True))
        for before, now in zip(status.machines, machines, strict=True):
            assert before.phase not in ENDED or now == before
            assert now.message is None or (now.message.isprintable() and len(now.message) < 600)
            assert not now.warm or now.phase is RestorePhase.SUCCEEDED
        new = summarise_restore(META, status, RestoreFacts("warm", machines=machines), AT + timedelta(seconds=step))
        assert (new.phase in ENDED) is all(machine.phase in ENDED for machine in machines)
        assert (new.completion_time is not None) is (new.phase in ENDED)
        assert new.start_time == AT
        assert VMRestoreStatus.model_validate(new.to_json_dict()) == new
        status = new
        if status.phase in ENDED:
            break
