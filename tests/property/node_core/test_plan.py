from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from machine_simulator import Node, at_goal, converge
from machine_strategies import disks, drives, limits, machines, pairs
from virtfleet_api.machine import DiskCopySource, ExistingSource, IoLimits, Machine, MachineDisk, Restart, Run
from virtfleet_api.report import StopReason
from virtfleet_api.virtual_machine import Clone, ReclaimPolicy
from virtfleet_node.core.actions import RemoveDisk, RequestShutdown, Start, Undefine
from virtfleet_node.core.changed import changed_fields, held_disks
from virtfleet_node.core.desired.io_tune import build_tuning, effective
from virtfleet_node.core.due import ASK_AGAIN
from virtfleet_node.core.observed import HOLDS_AFTER, DomainState, OffReason
from virtfleet_node.core.plan import plan
from virtfleet_node.core.record import new_stored, with_desired
from virtfleet_node.core.settle import settle, stays_off


def with_disks(desired: Machine, changed: tuple[MachineDisk, ...]) -> Machine:
    return desired.model_copy(update={"hardware": desired.hardware.model_copy(update={"disks": changed})})


def put(node: Node, desired: Machine) -> None:
    """Keep a new document, as the daemon does when the operator sends one."""
    assert node.stored is not None
    node.stored = with_desired(node.stored, desired)


def fresh(desired: Machine) -> Node:
    return Node(stored=new_stored(desired), state=DomainState.OFF)


@given(pairs)
def test_converges_from_any_state(pair: tuple[Machine, Node]) -> None:
    desired, node = pair
    gone = node.state is DomainState.ABSENT
    converge(node, desired)
    if gone:
        assert node.state is DomainState.ABSENT
    elif not stays_off(desired, settle(desired, node.observe(desired), node.now)):
        assert at_goal(node, desired)


@given(pairs)
def test_converged_needs_nothing(pair: tuple[Machine, Node]) -> None:
    desired, node = pair
    converge(node, desired)
    assert node.plan(desired).actions == ()


@given(pairs, st.lists(st.integers(0, 4), max_size=6))
def test_any_prefix_may_be_lost(pair: tuple[Machine, Node], prefixes: list[int]) -> None:
    desired, node = pair
    gone = node.state is DomainState.ABSENT
    for prefix in prefixes:
        for action in node.plan(desired).actions[:prefix]:
            node.apply(desired, action)
        node.shutdown = type(node.shutdown)()
    converge(node, desired)
    settled = settle(desired, node.observe(desired), node.now)
    assert gone or at_goal(node, desired) or stays_off(desired, settled)


@given(pairs)
def test_never_started_against_the_document(pair: tuple[Machine, Node]) -> None:
    desired, node = pair
    assume(desired.run in {Run.STOPPED, Run.ABSENT})
    converge(node, desired)
    assert node.starts == 0


@given(pairs)
def test_started_at_most_once(pair: tuple[Machine, Node]) -> None:
    desired, node = pair
    converge(node, desired)
    assert node.starts <= 1


@given(pairs)
def test_disks_are_removed_and_wiped_as_their_policy_says_and_no_others(pair: tuple[Machine, Node]) -> None:
    desired, node = pair
    policies = {(d.pool, d.name): d.reclaim_policy for d in desired.hardware.own_disks}
    before = set(node.disks)
    converge(node, desired)
    assert {policies.get(disk) for disk in node.removed} <= {ReclaimPolicy.DELETE}
    assert {policies.get(disk) for disk in node.wiped} <= {ReclaimPolicy.WIPE}
    assert desired.run is Run.ABSENT or not node.removed | node.wiped
    doomed = {disk for disk, policy in policies.items() if policy is not ReclaimPolicy.RETAIN}
    assert desired.run is not Run.ABSENT or node.removed | node.wiped == doomed & before


@given(machines, machines)
def test_disks_taken_out_of_the_document_are_kept_until_the_machine_is_deleted(first: Machine, second: Machine) -> None:
    assume(first.run is not Run.ABSENT and second.run is not Run.ABSENT)
    node = fresh(first)
    converge(node, first)
    before = set(node.disks)
    converge(node, second)
    assert before <= node.disks


@given(machines.filter(lambda m: m.run is Run.RUNNING), st.booleans(), st.integers(0, 2))
def test_a_crash_is_restarted_by_policy_and_told_from_a_killed_qemu(
    desired: Machine,
    panicked: bool,  # noqa: FBT001 -- drawn
    lost: int,
) -> None:
    node = fresh(desired)
    converge(node, desired)
    node.pass_time(1)
    if panicked:
        node.panic()
        for action in node.plan(desired).actions[:lost]:  # the daemon dies in between
            node.apply(desired, action)
    else:
        node.end(OffReason.FAILED)
    converge(node, desired)
    assert node.starts == (1 if desired.restart is Restart.NEVER else 2)
    assert node.stored is not None
    assert node.stored.record.last_stop is (StopReason.GUEST_CRASHED if panicked else StopReason.QEMU_FAILED)
    assert not node.stored.record.panicked


@given(machines.filter(lambda m: m.run is Run.RUNNING))
def test_a_shutdown_in_the_guest_is_restarted_only_with_always(desired: Machine) -> None:
    node = fresh(desired)
    converge(node, desired)
    node.end(OffReason.SHUTDOWN)
    converge(node, desired)
    assert node.starts == (2 if desired.restart is Restart.ALWAYS else 1)


@given(machines.filter(lambda m: m.run is Run.RUNNING))
def test_a_reboot_of_the_host_starts_again_what_ran(desired: Machine) -> None:
    node = fresh(desired)
    converge(node, desired)
    node.end(OffReason.UNKNOWN)
    converge(node, desired)
    assert node.starts == 2


@given(machines.filter(lambda m: m.run is Run.RUNNING), st.booleans(), st.booleans())
def test_a_new_token_restarts_exactly_once(desired: Machine, deaf: bool, ended: bool) -> None:  # noqa: FBT001 -- drawn
    node = fresh(desired)
    node.deaf = deaf
    converge(node, desired)
    if ended:
        node.end(OffReason.SHUTDOWN)
    asked = desired.model_copy(update={"start_token": "later"})
    before = node.starts
    converge(node, asked)
    converge(node, asked)
    assert node.starts == before + 1
    assert node.state is DomainState.RUNNING


@given(machines.filter(lambda m: m.run is Run.RUNNING and m.restart is not Restart.NEVER))
def test_crashes_in_a_row_are_spaced(desired: Machine) -> None:
    node = fresh(desired)
    converge(node, desired)
    waits = []
    for _ in range(8):
        node.end(OffReason.FAILED)
        crashed = node.now
        while node.state is not DomainState.RUNNING:
            wanted = node.plan(desired)
            for action in wanted.actions:
                node.apply(desired, action)
            node.now = max(node.now, wanted.wake_at or node.now)
        waits.append((node.now - crashed).total_seconds())
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]


@given(machines.filter(lambda m: m.run is Run.RUNNING), st.lists(limits, min_size=3, max_size=3))
def test_limits_of_a_running_guest_follow_the_document_without_a_restart(
    desired: Machine, changed: list[IoLimits | None]
) -> None:
    node = fresh(desired)
    converge(node, desired)
    pairs_of = zip(desired.hardware.own_disks, changed, strict=False)
    limited = tuple(disk.model_copy(update={"limits": new}) for disk, new in pairs_of)
    asked = with_disks(desired, limited)
    converge(node, asked)
    assert node.starts == 1
    assert {name: dict(node.tuning["default", name]) for name in (d.name for d in limited)} == {
        disk.name: dict(effective(build_tuning(disk))) for disk in limited
    }
    assert node.plan(asked).actions == ()


@given(machines.filter(lambda m: m.run is Run.RUNNING), disks, st.booleans())
def test_disks_of_a_running_guest_follow_the_document_without_a_restart(
    desired: Machine,
    changed: tuple[MachineDisk, ...],
    deaf: bool,  # noqa: FBT001 -- drawn
) -> None:
    node = fresh(desired)
    converge(node, desired)
    node.deaf = deaf
    before = set(node.tuning)
    asked = with_disks(desired, (*changed, *desired.hardware.volumes, *desired.hardware.drives))
    put(node, asked)
    converge(node, asked)
    wanted = {(disk.pool, disk.name) for disk in changed}
    assert set(node.tuning) == (wanted | before if deaf else wanted)
    assert node.starts == 1
    assert before <= node.disks
    node.pass_time(HOLDS_AFTER.total_seconds())
    observed = node.observe(asked)
    held = {name for _, name in before - wanted} if deaf else set()
    assert set(held_disks(asked.hardware, observed, node.now)) == held
    assert changed_fields(desired.hardware, asked.hardware, observed) == ()


@given(machines.filter(lambda m: m.run is Run.RUNNING and m.hardware.drives), drives, st.booleans())
def test_media_of_a_running_guest_follow_the_document(
    desired: Machine,
    changed: tuple[MachineDisk, ...],
    deaf: bool,  # noqa: FBT001 -- drawn
) -> None:
    node = fresh(desired)
    converge(node, desired)
    node.deaf = deaf
    before = dict(node.drives)
    asked = with_disks(desired, (*desired.hardware.own_disks, *desired.hardware.volumes, *changed))
    put(node, asked)
    converge(node, asked)
    wanted = {drive.name: drive.medium_uid for drive in changed}
    assert node.drives == (before if deaf else before | wanted)
    assert node.starts == 1
    node.pass_time(HOLDS_AFTER.total_seconds())
    observed = node.observe(asked)
    assert bool(held_disks(asked.hardware, observed, node.now)) == (deaf and before | wanted != before)
    assert changed_fields(desired.hardware, asked.hardware, observed) == (() if changed else ("disks[cd]",))


@settings(max_examples=12)  # each goes through a minute of asking
@given(machines.filter(lambda m: m.run is Run.RUNNING and m.hardware.own_disks))
def test_a_guest_that_holds_a_disk_is_asked_again_and_never_forced(desired: Machine) -> None:
    node = fresh(desired)
    converge(node, desired)
    node.deaf = True
    asked = with_disks(desired, desired.hardware.drives)
    put(node, asked)
    for _ in range(3):
        converge(node, asked)
        node.pass_time(ASK_AGAIN.total_seconds())
    assert node.done.count(f"detach disk default-{desired.hardware.own_disks[0].name}") == 3
    assert set(node.tuning) == {(disk.pool, disk.name) for disk in desired.hardware.own_disks}
    node.deaf = False
    converge(node, asked)
    assert not node.tuning


@given(machines.filter(lambda m: m.run in {Run.RUNNING, Run.STOPPED}), st.sampled_from((1 << 19, 1 << 21)))
def test_disks_grow_whether_the_guest_runs_or_not_and_never_shrink(desired: Machine, size: int) -> None:
    node = fresh(desired)
    on = desired.model_copy(update={"run": Run.RUNNING})
    converge(node, on)
    converge(node, desired)
    sized = tuple(disk.model_copy(update={"size_bytes": size}) for disk in desired.hardware.own_disks)
    hardware = desired.hardware.model_copy(update={"disks": sized})
    converge(node, desired.model_copy(update={"hardware": hardware}))
    converge(node, on.model_copy(update={"hardware": hardware}))
    assert set(node.capacity.values()) <= {max(size, 1 << 20)}
    assert node.starts == (1 if desired.run is Run.RUNNING else 2)


@given(machines.filter(lambda m: m.run is not Run.ABSENT))
def test_copies_of_one_machines_disks_are_made_together_and_before_the_start(desired: Machine) -> None:
    node = fresh(desired)
    converge(node, desired)
    wanted: dict[str, set[str]] = {}
    for disk in desired.hardware.disks:
        if isinstance(disk.source, DiskCopySource):
            wanted.setdefault(disk.source.machine_uid, set()).add(disk.name)
    assert sorted(map(sorted, node.clones)) == sorted(map(sorted, wanted.values()))
    assert desired.run is not Run.STOPPED or node.starts == 0


@given(machines.filter(lambda m: m.run is not Run.ABSENT), st.sampled_from(Clone), st.booleans())
def test_a_disk_that_shall_be_full_loses_its_image_without_a_restart(
    desired: Machine,
    clone: Clone,
    ran: bool,  # noqa: FBT001 -- drawn
) -> None:
    node = fresh(desired)
    converge(node, desired.model_copy(update={"run": Run.RUNNING if ran else Run.STOPPED}))
    node.backed = set(node.disks)
    starts = node.starts
    disks = tuple(disk.model_copy(update={"source": ExistingSource(clone=clone)}) for disk in desired.hardware.disks)
    hardware = desired.hardware.model_copy(update={"disks": disks})
    node.disks |= {(disk.pool, disk.name) for disk in disks}
    if ran:
        converge(node, desired.model_copy(update={"hardware": hardware, "run": Run.RUNNING}))
        assert node.starts == starts
    converge(node, desired.model_copy(update={"hardware": hardware}))
    named = {(disk.pool, disk.name) for disk in disks}
    assert node.backed & named == (set() if clone is Clone.FULL else node.backed)


@given(pairs)
def test_nothing_is_removed_while_others_copy_from_it(pair: tuple[Machine, Node]) -> None:
    desired, node = pair
    observed = replace(node.observe(desired), wanted_by=("default/clone",))
    wanted = plan(desired.model_copy(update={"run": Run.ABSENT}), observed, node.now)
    assert not any(isinstance(action, RemoveDisk | Undefine | RequestShutdown) for action in wanted.actions)


@given(pairs)
def test_plans_read_well(pair: tuple[Machine, Node]) -> None:
    desired, node = pair
    wanted = node.plan(desired)
    assert str(wanted)
    assert sum(isinstance(action, Start) for action in wanted.actions) <= 1
