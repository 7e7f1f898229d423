"""What a node reports, and what a user then reads: one row a case."""

from datetime import UTC, datetime
from typing import Any

import pytest

from virtfleet_api.conditions import Condition
from virtfleet_api.report import DiskReport, GuestReport, InterfaceReport, MachineReport, Phase, StopReason
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine_status import VirtualMachineStatus
from virtfleet_operator.core.summarise import MachineFacts, summarise_machine
from virtfleet_operator.core.verdict import Invalid, Unschedulable, Waiting

UID = "11111111-2222-3333-4444-555555555555"
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
BEFORE = datetime(2026, 11, 23, 9, tzinfo=UTC)
META = ObjectMeta(name="web-1", namespace="shop", uid=UID, generation=3)
DELETED = META.model_copy(update={"deletion_timestamp": NOW})
INVALID = Invalid(("spec.memory.guest: is missing: write a size",))
NO_IMAGE = Waiting("ImageNotFound", "spec.disks[0].source.image: there is no VMImage 'x': create it")
NO_ROOM = Unschedulable("0/2 nodes fit: 2 with too little free memory")
LOST = Waiting("BindingLost", "the label is gone")


def report(phase: Phase, **more: Any) -> MachineReport:
    return MachineReport.model_validate(
        {"uid": UID, "namespace": "shop", "name": "web-1", "generation": 3, "phase": phase} | more
    )


def on_a(phase: Phase, **more: Any) -> MachineFacts:
    return MachineFacts(node_name="node-a", report=report(phase, **more))


TABLE = [
    # what is known                                       word             Ready      reason              message
    ("new", MachineFacts(), "Scheduling", "False", "Scheduling", "A node is being chosen."),
    ("no image", MachineFacts(NO_IMAGE), "Scheduling", "False", "ImageNotFound", NO_IMAGE.message),
    ("no room", MachineFacts(NO_ROOM), "Unschedulable", "False", "Unschedulable", NO_ROOM.message),
    ("bad spec", MachineFacts(INVALID), "Invalid", "False", "Invalid", INVALID.message),
    ("lost", MachineFacts(LOST), "Unknown", "Unknown", "BindingLost", LOST.message),
    ("bound", MachineFacts(node_name="node-a"), "Provisioning", "False", "Provisioning", "The node makes the machine."),
    (
        "bound, image gone",
        MachineFacts(NO_IMAGE, "node-a"),
        "Provisioning",
        "False",
        "ImageNotFound",
        NO_IMAGE.message,
    ),
    (
        "being made",
        on_a(Phase.PROVISIONING, reason="ImportingImage", message="It fetches debian-12."),
        "Provisioning",
        "False",
        "ImportingImage",
        "It fetches debian-12.",
    ),
    ("starting", on_a(Phase.STARTING), "Starting", "False", "Starting", "The guest is being started."),
    ("running", on_a(Phase.RUNNING), "Running", "True", "Running", "The guest runs."),
    (
        "paused",
        on_a(Phase.PAUSED),
        "Paused",
        "False",
        "Paused",
        "The guest is paused: set spec.powerState to Running to let it go on.",
    ),
    ("stopping", on_a(Phase.STOPPING), "Stopping", "False", "Stopping", "The guest is asked to shut down."),
    (
        "stopped as asked",
        on_a(Phase.STOPPED, last_stop=StopReason.REQUESTED),
        "Stopped",
        "False",
        "Stopped",
        "The machine is off, as asked.",
    ),
    (
        "ended by itself",
        on_a(Phase.STOPPED, last_stop=StopReason.GUEST_SHUTDOWN),
        "Stopped",
        "False",
        "Stopped",
        "The guest shut itself down.",
    ),
    (
        "crashing",
        on_a(Phase.CRASH_LOOP, restarts=4),
        "Crashed",
        "False",
        "CrashLoopBackOff",
        "The guest ended 4 times soon after its start and is started again after a pause: see its console.",
    ),
    (
        "failed",
        on_a(Phase.FAILED, reason="StartFailed", message="libvirt: no such pool"),
        "Crashed",
        "False",
        "StartFailed",
        "libvirt: no such pool",
    ),
    (
        "failed with a reason that is none",
        on_a(Phase.FAILED, reason="no; such\nthing"),
        "Crashed",
        "False",
        "Failed",
        "The node cannot make the machine run.",
    ),
    ("gone", on_a(Phase.ABSENT), "Provisioning", "False", "Absent", "The node makes the machine again."),
    (
        "node silent",
        MachineFacts(None, "node-a", node_heard=False, report=report(Phase.RUNNING)),
        "Unknown",
        "Unknown",
        "NodeUnreachable",
        "Node node-a is not heard: what is shown is what was last known.",
    ),
    (
        "running, spec now bad",
        MachineFacts(INVALID, "node-a", report=report(Phase.RUNNING)),
        "Invalid",
        "False",
        "Invalid",
        INVALID.message,
    ),
    (
        "running, Secret now gone",
        MachineFacts(NO_IMAGE, "node-a", report=report(Phase.RUNNING)),
        "Running",
        "True",
        "Running",
        "The guest runs.",
    ),
]


def summarise(facts: MachineFacts, meta: ObjectMeta = META, old: VirtualMachineStatus | None = None) -> Any:
    return summarise_machine(meta, old or VirtualMachineStatus(), facts, NOW)


def condition(status: VirtualMachineStatus, type_: str) -> Condition | None:
    return next((c for c in status.conditions if c.type == type_), None)


def said(status: VirtualMachineStatus, type_: str) -> tuple[str, str, int]:
    found = condition(status, type_)
    assert found is not None, f"{type_} is not said"
    return found.status.value, found.reason, found.observed_generation


@pytest.mark.parametrize(
    ("facts", "word", "ready", "reason", "message"), [r[1:] for r in TABLE], ids=[r[0] for r in TABLE]
)
def test_word_and_ready(facts: MachineFacts, word: str, ready: str, reason: str, message: str) -> None:
    status = summarise(facts)
    assert status.printable_status == word
    found = condition(status, "Ready")
    assert found is not None
    assert (found.status.value, found.reason, found.message) == (ready, reason, message)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (MachineFacts(), "The machine is being deleted."),
        (on_a(Phase.STOPPING), "Node node-a removes the machine."),
        (on_a(Phase.FAILED, message="disk busy"), "Node node-a removes the machine: disk busy"),
        (
            MachineFacts(None, "node-a", node_heard=False),
            "Node node-a is not heard: the machine is removed once it answers.",
        ),
        (MachineFacts(INVALID, "node-a"), "Node node-a removes the machine."),
    ],
    ids=["unbound", "stopping", "failing", "silent", "invalid"],
)
def test_a_deleted_machine_is_terminating_whatever_else(facts: MachineFacts, message: str) -> None:
    status = summarise(facts, DELETED)
    found = condition(status, "Ready")
    assert status.printable_status == "Terminating"
    assert found is not None
    assert (found.status.value, found.reason, found.message) == ("False", "Terminating", message)


@pytest.mark.parametrize(
    ("facts", "scheduled", "synchronized"),
    [
        (MachineFacts(), ("False", "Scheduling", 3), ("False", "Scheduling", 3)),
        (MachineFacts(NO_ROOM), ("False", "Unschedulable", 3), ("False", "Unschedulable", 3)),
        (MachineFacts(INVALID, "node-a"), ("True", "Scheduled", 3), ("False", "Invalid", 3)),
        (MachineFacts(node_name="node-a"), ("True", "Scheduled", 3), ("False", "Synchronizing", 3)),
        (on_a(Phase.RUNNING), ("True", "Scheduled", 3), ("True", "Synchronized", 3)),
        (on_a(Phase.RUNNING, generation=2), ("True", "Scheduled", 3), ("False", "Synchronizing", 3)),
        (on_a(Phase.FAILED, reason="StartFailed"), ("True", "Scheduled", 3), ("False", "StartFailed", 3)),
        (
            MachineFacts(NO_IMAGE, "node-a", report=report(Phase.RUNNING)),
            ("True", "Scheduled", 3),
            ("False", "ImageNotFound", 3),
        ),
        (
            MachineFacts(None, "node-a", node_heard=False, report=report(Phase.RUNNING)),
            ("True", "Scheduled", 3),
            ("Unknown", "NodeUnreachable", 3),
        ),
    ],
)
def test_scheduled_and_synchronized(
    facts: MachineFacts, scheduled: tuple[str, str, int], synchronized: tuple[str, str, int]
) -> None:
    status = summarise(facts)
    assert said(status, "Scheduled") == scheduled
    assert said(status, "Synchronized") == synchronized


def test_ready_of_an_older_spec_is_not_taken_for_that_of_the_new_one() -> None:
    status = summarise(on_a(Phase.RUNNING, generation=2))
    assert status.observed_generation == 2
    assert said(status, "Ready") == ("True", "Running", 2)


def test_what_the_operator_decides_is_about_the_newest_spec() -> None:
    status = summarise(MachineFacts(INVALID, "node-a", report=report(Phase.RUNNING, generation=2)))
    assert status.observed_generation == 3
    assert said(status, "Ready") == ("False", "Invalid", 3)


def test_the_generation_does_not_go_back_when_a_bad_spec_is_repaired() -> None:
    old = VirtualMachineStatus(observed_generation=2)
    status = summarise(on_a(Phase.RUNNING, generation=1), old=old)
    assert status.observed_generation == 2
    assert said(status, "Ready") == ("True", "Running", 1)


def test_an_object_restored_from_a_backup_starts_anew() -> None:
    status = summarise(on_a(Phase.RUNNING), old=VirtualMachineStatus(observed_generation=40))
    assert status.observed_generation == 3


def test_silence_says_nothing_new_of_the_spec() -> None:
    old = VirtualMachineStatus(observed_generation=2)
    status = summarise(MachineFacts(None, "node-a", node_heard=False), old=old)
    assert status.observed_generation == 2
    assert said(status, "Ready") == ("Unknown", "NodeUnreachable", 2)


def test_the_agent_is_spoken_of_while_the_guest_is_there() -> None:
    assert said(summarise(on_a(Phase.RUNNING, agent_connected=True)), "AgentConnected")[0] == "True"
    assert said(summarise(on_a(Phase.PAUSED)), "AgentConnected")[0] == "False"
    assert condition(summarise(on_a(Phase.STOPPED)), "AgentConnected") is None


def test_paused_and_restart_required_are_said_only_when_they_hold() -> None:
    calm = summarise(on_a(Phase.RUNNING))
    assert condition(calm, "Paused") is None
    assert condition(calm, "RestartRequired") is None
    changed = summarise(on_a(Phase.PAUSED, restart_required=("cpu.cores", "disks[root].cache")))
    assert said(changed, "Paused")[0] == "True"
    found = condition(changed, "RestartRequired")
    assert found is not None
    assert found.message == (
        "Waiting for the next start: cpu.cores, disks[root].cache. Restart the machine with `kubectl vm restart`."
    )


def test_a_guest_that_holds_a_disk_is_named_with_what_to_do() -> None:
    held = condition(summarise(on_a(Phase.RUNNING, held_disks=("data", "cd"))), "RestartRequired")
    assert held is not None
    assert (held.reason, held.message) == (
        "GuestHolds",
        "The guest still uses data, cd: unmount it there, or restart the machine with `kubectl vm restart`.",
    )
    both = condition(
        summarise(on_a(Phase.RUNNING, held_disks=("cd",), restart_required=("cpu.cores",))), "RestartRequired"
    )
    assert both is not None
    assert both.message == (
        "Waiting for the next start: cpu.cores. "
        "The guest still uses cd: unmount it there, or restart the machine with `kubectl vm restart`."
    )


def test_a_change_that_failed_is_said_of_a_running_guest() -> None:
    status = summarise(on_a(Phase.RUNNING, reason="ActionFailed", message="Pool default is full."))
    assert said(status, "Ready")[0] == "True"
    assert said(status, "Synchronized")[:2] == ("False", "ActionFailed")
    assert condition(status, "Synchronized").message == "Pool default is full."  # type: ignore[union-attr]


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    running = summarise_machine(META, VirtualMachineStatus(), on_a(Phase.RUNNING), BEFORE)
    same = summarise(on_a(Phase.RUNNING, generation=2), old=running)
    other = summarise(on_a(Phase.STOPPED), old=running)
    assert condition(same, "Ready").last_transition_time == BEFORE  # type: ignore[union-attr]
    assert condition(other, "Ready").last_transition_time == NOW  # type: ignore[union-attr]
    assert condition(other, "Scheduled").last_transition_time == BEFORE  # type: ignore[union-attr]


FULL = on_a(
    Phase.RUNNING,
    started_at=datetime(2026, 11, 23, 9, 30, 15, 123456, tzinfo=UTC),
    restarts=1,
    machine_type="pc-q35-7.2",
    cpu_model="host-model",
    vcpus=2,
    memory_bytes=2**30,
    disks=(DiskReport(name="root", pool="default", target="vda", capacity_bytes=20 * 2**30, backing_image_uid="img"),),
    interfaces=(
        InterfaceReport(
            name="eth0",
            mac="52:54:00:00:00:01",
            ip_addresses=("fe80::1%eth0", "2001:db8::5", "127.0.0.1", "10.0.2.15/24", "nonsense", "::1", "10.0.2.15"),
        ),
    ),
    agent_connected=True,
    guest=GuestReport(os="Debian\x1b[31m GNU/Linux 12", kernel="6.1.0", hostname="web-1"),
)


def test_what_the_node_reports_is_shown() -> None:
    shown = summarise(FULL).to_json_dict()
    assert shown["nodeName"] == "node-a"
    assert shown["machine"] == {
        "uuid": UID,
        "machineType": "pc-q35-7.2",
        "cpuModel": "host-model",
        "vcpus": {"current": 2, "max": 2},
        "memory": {"current": "1Gi"},
        "restarts": 1,
        "startedAt": "2026-11-23T09:30:15Z",
    }
    assert shown["disks"] == [
        {"name": "root", "pool": "default", "capacity": "20Gi", "backing": "img", "target": "vda"}
    ]
    assert shown["guest"] == {"os": "Debian [31m GNU/Linux 12", "kernel": "6.1.0", "hostname": "web-1"}


def test_addresses_are_those_that_are_some_the_useful_one_first() -> None:
    (card,) = summarise(FULL).interfaces
    assert card.ip_addresses == ("10.0.2.15", "2001:db8::5", "fe80::1")


def test_a_guest_cannot_fill_the_status_with_addresses() -> None:
    many = tuple(f"10.0.{n // 250}.{n % 250}" for n in range(5000))
    facts = on_a(Phase.RUNNING, interfaces=(InterfaceReport(name="eth0", mac="m", ip_addresses=many),))
    assert len(summarise(facts).interfaces[0].ip_addresses) == 16


def test_what_was_known_is_kept_while_a_node_is_silent_and_dropped_when_it_says_so() -> None:
    known = summarise(FULL)
    silent = summarise(MachineFacts(None, "node-a", node_heard=False), old=known)
    assert (silent.machine, silent.disks, silent.interfaces, silent.guest) == (
        known.machine,
        known.disks,
        known.interfaces,
        known.guest,
    )
    gone = summarise(MachineFacts(None, "node-a"), old=known)
    assert (gone.machine, gone.disks, gone.interfaces, gone.guest) == (None, (), (), None)


def test_the_name_of_the_node_is_never_forgotten() -> None:
    assert summarise(MachineFacts(INVALID), old=VirtualMachineStatus(node_name="node-a")).node_name == "node-a"
