"""Binding, placement, orphans, events, and when to write."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from virtfleet_api.conditions import Condition
from virtfleet_api.names import FINALIZER, NODE_LABEL
from virtfleet_api.report import MachineReport, NodeReport, Phase, PoolReport
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_machine_status import VirtualMachineStatus
from virtfleet_api.vm_image import VMImageStatus
from virtfleet_api.vm_node import NodeResources, VMNode, VMNodeStatus
from virtfleet_operator.core.binding import Bound, Lost, Restore, Unbound, binding
from virtfleet_operator.core.effective import Sizing
from virtfleet_operator.core.events import EventText, image_events, machine_events, node_events
from virtfleet_operator.core.orphans import find_orphans
from virtfleet_operator.core.place import (
    Candidate,
    Load,
    Need,
    Neighbour,
    NodeView,
    Placed,
    PoolRoom,
    Unschedulable,
    candidate,
    need,
    place,
)
from virtfleet_operator.core.writes import (
    AT_ONCE,
    image_write_due,
    is_transitional,
    machine_write_due,
    merge_patch,
    node_write_due,
)

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def meta(label: str | None = None, *, held: bool = False, deleted: bool = False) -> ObjectMeta:
    return ObjectMeta(
        name="web-1",
        labels={NODE_LABEL: label} if label else {},
        finalizers=(FINALIZER,) if held else (),
        deletion_timestamp=NOW if deleted else None,
    )


@pytest.mark.parametrize(
    ("metadata", "written", "reported", "complete", "answer"),
    [
        (meta(), None, (), False, Unbound()),
        (meta("a", held=True), None, (), False, Bound("a")),
        (meta("a", held=True), "a", ("a",), True, Bound("a")),
        (meta("b", held=True), "a", (), False, Restore("a")),
        (meta("b", held=True), None, ("a",), False, Restore("a")),
        (meta(held=True), "a", (), False, Restore("a")),
        (meta(held=True), None, ("a",), False, Restore("a")),
        (meta("a"), "a", (), False, Restore("a")),
        (meta("a", deleted=True), "a", (), False, Bound("a")),
        (meta("a", held=True), None, ("a", "b"), True, Bound("a")),
        (meta("b", held=True), None, ("a", "b"), True, Bound("b")),
        (meta(held=True), None, (), True, Unbound()),
    ],
)
def test_where_a_machine_is(
    metadata: ObjectMeta,
    written: str | None,
    reported: tuple[str, ...],
    complete: bool,  # noqa: FBT001  a column of the table
    answer: object,
) -> None:
    assert binding(metadata, VirtualMachineStatus(node_name=written), reported, fleet_complete=complete) == answer


def test_a_machine_that_was_bound_nobody_knows_where_is_not_placed() -> None:
    answer = binding(meta(held=True), VirtualMachineStatus(), (), fleet_complete=False)
    assert isinstance(answer, Lost)
    assert NODE_LABEL in answer.message


# placement


def view(name: str = "a", *, heard: bool = True, connected: bool = True, **metadata: Any) -> NodeView:
    body = {"metadata": {"name": name} | metadata, "spec": {"overcommit": {"cpu": "2", "memory": "1.5"}}}
    report = NodeReport(
        name=name,
        daemon_version="",
        libvirt_version="",
        qemu_version="",
        hypervisor="qemu",
        architecture="x86_64",
        cpus=4,
        cpu_frequency_hz=1,
        memory_bytes=1000,
        pools=(PoolReport(name="default", capacity_bytes=10, free_bytes=5),),
        labels={"zone": "lie"},
        hypervisor_connected=connected,
    )
    return NodeView(VMNode.model_validate(body), report, heard, Load(1, 2, 100))


def test_a_node_offers_what_its_spec_allows_under_the_labels_of_its_object() -> None:
    offered = candidate(view(labels={"zone": "east"}))
    assert offered == Candidate(
        "a",
        "",
        {"kubernetes.io/hostname": "a", "kubernetes.io/arch": "amd64", "zone": "east"},
        {"default": PoolRoom()},
        8,
        1500,
        Load(1, 2, 100),
        reserved_hz=4,
        cpu_hz=1,
        cpus=4,
        architecture="x86_64",
    )


@pytest.mark.parametrize(
    ("seen", "unready"),
    [
        (view(), ""),
        (view(heard=False), "not ready"),
        (view(connected=False), "not ready"),
        (view(deletionTimestamp="2026-11-23T10:00:00Z"), "being deleted"),
        (NodeView(VMNode.model_validate({"metadata": {"name": "a"}}), heard=True), "not ready"),
    ],
)
def test_a_node_that_takes_nothing_says_why(seen: NodeView, unready: str) -> None:
    assert candidate(seen).unready == unready


def test_a_machine_needs_its_vcpus_memory_pools_and_labels(machine: Callable[..., VirtualMachine]) -> None:
    disks = [{"name": n, "size": "1Gi", "pool": pool, "source": {"blank": {}}} for n, pool in (("a", "x"), ("b", "y"))]
    asked = need(machine(disks=disks, nodeSelector={"zone": "east"}), Sizing(2, 2, 1, "m", 64), {"x": 1, "y": 2})
    itself = Neighbour("shop", {})
    assert asked == Need(4, 64, {"x": 1, "y": 2}, {"zone": "east"}, itself=itself, cpu_model="m")


def node(name: str, **more: Any) -> Candidate:
    return Candidate(name, **({"vcpus": 8, "memory_bytes": 100, "pools": {"default": PoolRoom()}} | more))


@pytest.mark.parametrize(
    ("nodes", "answer"),
    [
        ([], Unschedulable("there is no node: start a node daemon and let it enrol")),
        ([node("a", unready="not ready")], Unschedulable("0/1 nodes fit: 1 not ready")),
        (
            [node("a", memory_bytes=9), node("b", load=Load(1, 0, 91)), node("c", unready="not ready")],
            Unschedulable("0/3 nodes fit: 2 with too little free memory, 1 not ready"),
        ),
        (
            [node("a", load=Load(1, 7, 0)), node("b", pools={}), node("c", labels={"zone": "west"})],
            Unschedulable(
                "0/3 nodes fit: 1 not matching nodeSelector, 1 with too few free vCPUs, 1 without pool default"
            ),
        ),
        ([node("b"), node("a")], Placed("a")),
        ([node("b"), node("a", load=Load(1, 1, 1))], Placed("b")),
        ([node("b", load=Load(1, 0, 50)), node("a", load=Load(1, 5, 0))], Placed("b")),
        ([node("a", vcpus=4), node("b")], Placed("b")),
        ([node("b", load=Load(1)), node("a", load=Load(2))], Placed("b")),
    ],
)
def test_a_place_or_the_reasons_why_not(nodes: list[Candidate], answer: object) -> None:
    zone = {"zone": "east"}
    nodes = [
        n if n.labels else Candidate(n.name, n.unready, zone, n.pools, n.vcpus, n.memory_bytes, n.load) for n in nodes
    ]
    assert place(Need(2, 10, {"default": 1}, zone), nodes) == answer


def test_the_last_vcpu_and_the_last_byte_are_given() -> None:
    full = node("a", vcpus=8, memory_bytes=100, load=Load(1, 6, 90))
    assert place(Need(2, 10), [full]) == Placed("a")
    assert isinstance(place(Need(3, 10), [full]), Unschedulable)
    assert isinstance(place(Need(2, 11), [full]), Unschedulable)


def test_loads_add_up() -> None:
    assert Load(1, 2, 3) + Load(1, 1, 1) - Load(1, 2, 3) == Load(1, 1, 1)


# orphans


def seen(uid: str, phase: Phase = Phase.RUNNING) -> MachineReport:
    return MachineReport(uid=uid, namespace="shop", name=uid, phase=phase)


def test_orphans_are_machines_without_an_object_or_with_one_elsewhere() -> None:
    reports = [seen("mine"), seen("new"), seen("z-gone"), seen("a-elsewhere"), seen("removed", Phase.ABSENT)]
    bindings = {"mine": "a", "new": None, "a-elsewhere": "b"}
    assert find_orphans("a", reports, bindings) == ("a-elsewhere", "z-gone")
    assert len(find_orphans("a", [seen(f"{n}") for n in range(1000)], {})) == 100


# events


def ready(reason: str, message: str = "m", type_: str = "Ready", status: str = "True") -> Condition:
    return Condition.model_validate(
        {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW}
    )


def status(word: str | None = None, *conditions: Condition, node_name: str | None = "a") -> VirtualMachineStatus:
    return VirtualMachineStatus.model_validate(
        {"printableStatus": word, "nodeName": node_name, "conditions": conditions}
    )


RUNNING = status("Running", ready("Running", "The guest runs."))
INVALID = status("Invalid", ready("Invalid", "x: write y", status="False"))


@pytest.mark.parametrize(
    ("old", "new", "events"),
    [
        (RUNNING, RUNNING, []),
        (
            status(node_name=None),
            RUNNING,
            [("Normal", "Scheduled", "The machine is bound to node a."), ("Normal", "Running", "The guest runs.")],
        ),
        (RUNNING, status("Crashed", ready("CrashLoopBackOff", "again")), [("Warning", "CrashLoopBackOff", "again")]),
        (RUNNING, status("Unknown", ready("NodeUnreachable", "gone")), [("Warning", "NodeUnreachable", "gone")]),
        (RUNNING, status("Stopped", ready("Stopped", "off")), [("Normal", "Stopped", "off")]),
        (INVALID, status("Invalid", ready("Invalid", "z: write w")), [("Warning", "Invalid", "z: write w")]),
        (RUNNING, status("Running", ready("Running", "other words")), []),
        (
            RUNNING,
            status("Running", ready("Running"), ready("SpecChanged", "cpu", "RestartRequired")),
            [("Normal", "RestartRequired", "cpu")],
        ),
    ],
)
def test_machine_events(
    old: VirtualMachineStatus, new: VirtualMachineStatus, events: list[tuple[Any, str, str]]
) -> None:
    assert machine_events(old, new) == tuple(EventText(*event) for event in events)


def test_image_and_node_events() -> None:
    failed = VMImageStatus.model_validate({"phase": "Failed", "conditions": [ready("ChecksumMismatch", "bad")]})
    assert image_events(VMImageStatus(), failed) == (EventText("Warning", "ChecksumMismatch", "bad"),)
    assert image_events(failed, failed) == ()
    lost = VMNodeStatus(conditions=(ready("Unreachable", "gone", status="Unknown"),), orphans=("u", "v"))
    assert node_events(VMNodeStatus(orphans=("u",)), lost) == (
        EventText("Warning", "Unreachable", "gone"),
        EventText("Warning", "OrphanFound", "Machine v on the node has no object and is kept; 2 such machines in all."),
    )
    assert node_events(lost, lost) == ()


def test_maintenance_is_told_when_it_begins_and_when_it_ends() -> None:
    begun = VMNodeStatus(conditions=(ready("Maintenance", type_="Schedulable", status="False"),))
    over = VMNodeStatus(conditions=(ready("Open", type_="Schedulable"),))
    assert [event.reason for event in node_events(over, begun)] == ["MaintenanceBegun"]
    assert [event.reason for event in node_events(begun, over)] == ["MaintenanceEnded"]
    assert node_events(begun, begun) == node_events(over, over) == ()


# writes


@pytest.mark.parametrize("word", ["Scheduling", "Provisioning", "Starting", "Stopping", "Terminating"])
def test_what_is_passed_through_is_written_when_it_lasts(word: str) -> None:
    assert is_transitional(status(word))
    assert machine_write_due(VirtualMachineStatus(), status(word), NOW) == NOW + 5 * SECOND
    assert machine_write_due(RUNNING, status(word), NOW, NOW + 3 * SECOND) == NOW + 8 * SECOND


@pytest.mark.parametrize("word", ["Running", "Paused", "Stopped", "Crashed", "Unschedulable", "Invalid", "Unknown"])
def test_what_is_rested_in_is_written_at_once(word: str) -> None:
    assert not is_transitional(status(word))
    assert machine_write_due(VirtualMachineStatus(), status(word), NOW) == NOW
    assert machine_write_due(VirtualMachineStatus(), status(word), NOW, NOW - SECOND) == NOW


def test_a_spec_on_its_way_to_the_node_is_passed_through() -> None:
    assert is_transitional(status("Running", ready("Synchronizing", type_="Synchronized", status="False")))
    assert not is_transitional(status("Running", ready("Synchronized", type_="Synchronized")))
    assert not is_transitional(status("Running", ready("Synchronizing", status="False")))


def test_a_guest_cannot_make_the_operator_write_all_the_time() -> None:
    def with_guest(address: str, hostname: str, agent: str) -> VirtualMachineStatus:
        return VirtualMachineStatus.model_validate(
            {
                "printableStatus": "Running",
                "interfaces": [{"name": "eth0", "mac": "m", "ipAddresses": [address]}],
                "guest": {"hostname": hostname},
                "conditions": [ready("Connected", type_="AgentConnected", status=agent)],
            }
        )

    old, new = with_guest("10.0.0.1", "a", "True"), with_guest("10.0.0.2", "b", "False")
    assert machine_write_due(old, new, NOW, NOW - SECOND) == NOW + 4 * SECOND
    assert machine_write_due(old, new, NOW, NOW - 60 * SECOND) == NOW
    assert machine_write_due(old, new, NOW) == NOW
    moved = new.model_copy(update={"node_name": "b"})
    assert machine_write_due(old, moved, NOW, NOW - SECOND) == NOW


def test_nothing_new_is_never_written() -> None:
    assert machine_write_due(RUNNING, RUNNING, NOW) is None
    assert image_write_due(VMImageStatus(), VMImageStatus(), None) is None
    assert node_write_due(VMNodeStatus(), VMNodeStatus(), None) is None


def test_progress_is_written_every_other_second() -> None:
    old, new = (VMImageStatus.model_validate({"phase": "Importing", "progress": p}) for p in ("1%", "2%"))
    done = VMImageStatus.model_validate({"phase": "Ready", "progress": "100%"})
    assert image_write_due(old, new, NOW) == NOW + 2 * SECOND
    assert image_write_due(old, new, None) == AT_ONCE
    assert image_write_due(old, done, NOW) == AT_ONCE


def test_a_nodes_load_is_written_every_ten_seconds() -> None:
    old = VMNodeStatus(machines=1, allocated=NodeResources(cpus=1))
    more = VMNodeStatus(machines=2, allocated=NodeResources(cpus=2))
    assert node_write_due(old, more, NOW) == NOW + 10 * SECOND
    assert node_write_due(old, more, None) == AT_ONCE
    assert node_write_due(old, more.model_copy(update={"orphans": ("u",)}), NOW) == AT_ONCE


def test_a_merge_patch_removes_changes_and_keeps() -> None:
    old = {"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "f": None}
    new = {"b": {"c": 1, "d": 3}, "e": [1, 2], "f": None, "g": {"h": 1}}
    assert merge_patch(old, new) == {"a": None, "b": {"d": 3}, "e": [1, 2], "g": {"h": 1}}
    assert merge_patch({"a": {"b": 1}}, {"a": {}}) == {"a": {"b": None}}
