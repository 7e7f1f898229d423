"""What `kubectl vm restore` makes, and what it says of what became of it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from virtfleet_api.vm_restore import VMRestore
from virtfleet_cli.errors import CliError
from virtfleet_cli.progress import Share
from virtfleet_cli.restore import (
    Target,
    ask_to_go_on,
    build_restore,
    check_target,
    describe_failure,
    describe_restored,
    look_at_restore,
)
from virtfleet_cli.waiting import Stand

WARM: dict[str, Any] = {
    "metadata": {"name": "warm", "namespace": "shop"},
    "spec": {"virtualMachine": "web-1"},
    "status": {"creationTime": "2026-03-01T10:00:00Z"},
}
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def restored(*, new: bool = False, message: str = "", **status: Any) -> dict[str, Any]:
    condition = {"type": "Complete", "status": "False", "message": message}
    target = {"newVirtualMachines": {"namePrefix": "build"}} if new else {"virtualMachine": "web-1"}
    return {
        "metadata": {"name": "warm-x7", "namespace": "shop"},
        "spec": {"snapshot": "warm", "target": target},
        "status": {"conditions": [condition], **status},
    }


def test_a_machine_is_brought_back() -> None:
    manifest = build_restore(WARM, Target(machine="web-1"))
    assert manifest == {
        "apiVersion": "virtfleet.io/v1alpha1",
        "kind": "VMRestore",
        "metadata": {"generateName": "warm-", "namespace": "shop"},
        "spec": {"snapshot": "warm", "target": {"virtualMachine": "web-1"}},
    }


def test_new_machines_are_made_without_memory() -> None:
    manifest = build_restore(WARM, Target(prefix="build", count=10), memory=False)
    made = VMRestore.model_validate({**manifest, "metadata": {"name": "warm-x7"}})
    new = made.spec.target.new_virtual_machines
    assert new
    assert (new.name_prefix, new.count, made.spec.memory, made.spec.target.virtual_machine) == (
        "build",
        10,
        False,
        None,
    )


def test_new_machines_get_machine_ids_of_their_own_if_asked_for() -> None:
    manifest = build_restore(WARM, Target(prefix="build", reset_machine_id=True))
    made = VMRestore.model_validate({**manifest, "metadata": {"name": "warm-x7"}})
    assert made.spec.target.new_virtual_machines
    assert made.spec.target.new_virtual_machines.reset_machine_id


def test_the_present_state_is_captured_first_if_asked_for() -> None:
    assert build_restore(WARM, Target(machine="web-1"), snapshot_first=True)["spec"]["snapshotFirst"] is True


def test_a_snapshot_of_another_machine_brings_none_back() -> None:
    with pytest.raises(CliError, match=r"is of VirtualMachine web-1, not db; make new machines from it with .* warm"):
        check_target(WARM, Target(machine="db"))
    check_target(WARM, Target(machine="web-1"))
    check_target(WARM, Target(prefix="db"))


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (False, "2h old; what it has written and done since is lost. Go on?"),
        (True, "its present state is captured first. Go on?"),
    ],
)
def test_the_question_says_what_is_lost(*, first: bool, said: str) -> None:
    assert said in ask_to_go_on(WARM, "web-1", NOW, snapshot_first=first)


@pytest.mark.parametrize(
    ("status", "stand"),
    [
        ({}, Stand()),
        ({"phase": "Restoring", "done": "3/10"}, Stand(share=Share(3, 10, "3/10"))),
        ({"phase": "Restoring", "done": "0/0"}, Stand()),
        ({"phase": "Restoring", "done": "many/10"}, Stand()),
        ({"phase": "Restoring", "done": "1/" + "9" * 5000}, Stand()),
        (
            {"phase": "Restoring", "machines": [{"name": "a"}, {"name": "b", "message": "It\nwaits."}]},
            Stand(said="It\N{REPLACEMENT CHARACTER}waits."),
        ),
        ({"phase": "Pending", "message": "No node has room."}, Stand(said="No node has room.")),
        ({"phase": "Succeeded", "done": "1/1"}, Stand(ended=True, share=Share(1, 1, "1/1"))),
        ({"phase": "Failed"}, Stand(ended=True)),
    ],
)
def test_how_far_it_is(status: dict[str, Any], stand: Stand) -> None:
    assert look_at_restore(restored(**status)) == stand


def test_the_machines_are_named_and_the_snapshot_before() -> None:
    machines = [{"name": "web-1", "phase": "Succeeded", "warm": True}]
    done = restored(phase="Succeeded", machines=machines, snapshotBefore="warm-x7-before")
    assert describe_restored(done).splitlines() == [
        "virtualmachine.virtfleet.io/web-1 restored, its guest goes on where it was",
        "vmsnapshot.virtfleet.io/warm-x7-before has the state before",
    ]
    assert describe_failure(done) == ""


def test_a_failure_names_who_is_left_and_who_is_made() -> None:
    machines = [
        {"name": "build-1", "phase": "Succeeded"},
        {"name": "build-2", "phase": "Failed", "message": "Node a: no space\x1b[2J"},
        {"name": "build-3", "phase": "Pending"},
    ]
    failed = restored(new=True, phase="Failed", machines=machines, message="1 of 3 machines failed.")
    assert describe_restored(failed) == "virtualmachine.virtfleet.io/build-1 created"
    assert describe_failure(failed).splitlines() == [
        "VMRestore shop/warm-x7 failed: 1 of 3 machines failed.",
        "build-2: Node a: no space\N{REPLACEMENT CHARACTER}[2J",
        "build-3: Pending",
    ]


def test_a_failure_without_words_is_one() -> None:
    assert describe_failure(restored(phase="Failed")) == "VMRestore shop/warm-x7 failed: nobody says why"
