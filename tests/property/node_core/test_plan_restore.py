"""Restores: served once, whole or not at all, whatever is lost in between."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from machine_simulator import converge
from machine_strategies import machines
from restore_simulator import FROM_SNAPSHOT, OLD, SNAPSHOT, RestoringNode, snapshot_of
from virtfleet_api.machine import BlankSource, Machine, MachineDevice, MachineRestore, Run
from virtfleet_node.core.captured import KeptSnapshot
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import DomainState
from virtfleet_node.core.plan import plan
from virtfleet_node.core.record import Life, Record, new_stored
from virtfleet_node.core.report import build_report

TOKEN = "00000000-0000-4000-8000-0000000000ee"
ACTIVE = {Run.RUNNING: DomainState.RUNNING, Run.PAUSED: DomainState.PAUSED}


@st.composite
def cases(draw: st.DrawFn) -> tuple[Machine, RestoringNode]:
    """Return a machine with disks that is asked to be restored, on or off, and its node."""
    machine = draw(machines.filter(lambda m: m.run is not Run.ABSENT and m.hardware.own_disks))
    own = tuple(
        disk if disk.is_volume else disk.model_copy(update={"source": BlankSource()}) for disk in machine.hardware.disks
    )
    hardware = machine.hardware.model_copy(update={"disks": own})
    machine = machine.model_copy(update={"hardware": hardware, "start_token": ""})
    stored = new_stored(machine)
    state = draw(st.sampled_from([DomainState.OFF, DomainState.RUNNING, DomainState.PAUSED]))
    life = Life.OFF if state is DomainState.OFF else Life.RUNNING
    node = RestoringNode(
        stored=stored.model_copy(update={"record": stored.record.model_copy(update={"life": life})}),
        state=state,
        disks={(disk.pool, disk.name) for disk in machine.hardware.own_disks},
        kept=snapshot_of(machine, memory=draw(st.booleans())),
        busy=draw(st.integers(0, 3)),
        agent_says=draw(st.sampled_from(["", "no such file"])),
        outcomes=draw(st.lists(st.sampled_from(["", "refused", "lost", "cut"]), max_size=5)),
    )
    if node.active:
        node.tuning = {key: {} for key in node.disks}
        node.drives = {drive.name: drive.medium_uid for drive in machine.hardware.drives}
    memory, machine_id = draw(st.booleans()), draw(st.booleans())
    asked = MachineRestore(token=TOKEN, snapshot_uid=SNAPSHOT, memory=memory, machine_id=machine_id)
    return machine.model_copy(update={"restore": asked}), node


def record_of(node: RestoringNode) -> Record:
    assert node.stored is not None
    return node.stored.record


@given(cases(), st.lists(st.integers(0, 4), max_size=8), st.sets(st.integers(0, 8)))
def test_a_restore_is_served_once_and_never_half(
    case: tuple[Machine, RestoringNode], prefixes: list[int], killed: set[int]
) -> None:
    desired, node = case
    for number, prefix in enumerate(prefixes):
        for action in node.plan(desired).actions[:prefix]:
            node.apply(desired, action)
        if number in killed:
            node.kill_qemu()
    node.busy = 0
    converge(node, desired)
    record = record_of(node)
    assert (record.restoring, record.restored_token) == (None, TOKEN)
    assert node.contents() == ({OLD} if record.restore_error else {FROM_SNAPSHOT})
    assert node.warm <= 1
    assert record.restored_warm is (node.warm == 1)
    assert prefixes or all(len(layers) == 1 for layers in node.layers.values())
    asked = desired.restore is not None and desired.restore.machine_id
    assert node.machine_ids <= (node.warm if asked else 0), "only whoever asks for it, and once"
    if asked and node.warm and node.state is DomainState.RUNNING and not killed:
        assert (record.machine_id_due, node.machine_ids, record.machine_id_error) == (False, 1, node.agent_says)
    served = len(node.done)
    converge(node, desired)
    assert not [step for step in node.done[served:] if "restore" in step or "memory" in step]


@given(cases())
def test_what_is_reported_is_the_restore_that_was_asked_for(case: tuple[Machine, RestoringNode]) -> None:
    desired, node = case
    for _ in range(20):
        observed = node.observe(desired)
        told = build_report(desired, observed, GuestFacts(), node.now).restore
        assert told is not None
        assert told.token == TOKEN
        record = observed.record
        waits = record.machine_id_due and node.active and desired.run is Run.RUNNING
        assert told.done is (record.restored_token == TOKEN and not waits)
        if told.done:
            assert (told.warm, told.message) == (record.restored_warm, record.restore_error)
            assert told.note.endswith(record.machine_id_error)
            assert bool(told.note) is bool(record.machine_id_error)
        for action in plan(desired, observed, node.now).actions:
            node.apply(desired, action)
        node.pass_time(1)
    assert told.done


def refusal(desired: Machine, node: RestoringNode, kept: KeptSnapshot | None) -> str:
    """Return why a restore is refused; the guest runs on."""
    node.kept = kept
    before = node.state, node.contents()
    actions = node.plan(desired).actions
    node.apply(desired, actions[0])
    assert (node.state, node.contents()) == before
    assert (record_of(node).restored_token, record_of(node).restoring) == (TOKEN, None)
    return record_of(node).restore_error


@given(cases())
def test_a_restore_that_cannot_be_done_leaves_the_machine_alone(case: tuple[Machine, RestoringNode]) -> None:
    desired, node = case
    node.observe(desired)
    kept = snapshot_of(desired)
    assert kept.captured is not None
    assert "This node has no snapshot" in refusal(desired, replace(node), None)
    assert "has not been captured yet" in refusal(desired, replace(node), replace_captured(kept, None))
    failed = kept.model_copy(update={"error": "The pool was full."})
    assert refusal(desired, replace(node), failed) == (
        "The snapshot failed, so there is nothing to restore: The pool was full."
    )
    other = kept.document.model_copy(update={"machine_uid": SNAPSHOT})
    assert "is another machine's" in refusal(desired, replace(node), kept.model_copy(update={"document": other}))
    more = kept.captured.disks[0].model_copy(update={"name": "gone"})
    added = kept.captured.model_copy(update={"disks": (*kept.captured.disks, more)})
    assert "Disk gone of the snapshot is not a disk of the machine any more" in refusal(
        desired, replace(node), replace_captured(kept, added)
    )


def replace_captured(kept: KeptSnapshot, captured: object) -> KeptSnapshot:
    return kept.model_copy(update={"captured": captured})


@given(cases())
def test_devices_of_the_host_are_in_no_memory_image(case: tuple[Machine, RestoringNode]) -> None:
    desired, node = case
    kept = snapshot_of(desired)
    assert kept.captured is not None
    hardware = desired.hardware.model_copy(update={"devices": (MachineDevice(name="gpu"),)})
    kept = replace_captured(kept, kept.captured.model_copy(update={"hardware": hardware}))
    asked = desired.model_copy(
        update={"run": Run.RUNNING, "restore": MachineRestore(token=TOKEN, snapshot_uid=SNAPSHOT, memory=True)}
    )
    node.observe(asked)
    assert "had devices of the host (gpu)" in refusal(asked, node, kept)
