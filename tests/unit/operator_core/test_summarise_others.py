"""The status of images, nodes and classes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from virtfleet_api.image import ImageFormat, ImageReport
from virtfleet_api.report import NodeReport, NumaCell, PoolReport
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_class import VMClassStatus
from virtfleet_api.vm_image import ImagePhase, VMImageStatus
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.place import Load
from virtfleet_operator.core.summarise import (
    ImageFacts,
    NodeFacts,
    summarise_class,
    summarise_image,
    summarise_node,
)
from virtfleet_operator.core.verdict import Waiting

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
META = ObjectMeta(name="debian-12", namespace="shop", uid="u", generation=2)
DELETED = META.model_copy(update={"deletion_timestamp": NOW})
UID = "11111111-2222-3333-4444-555555555555"
GIB = 2**30


def copy(phase: ImagePhase, **more: Any) -> ImageReport:
    return ImageReport(uid=UID, namespace="shop", name="debian-12", phase=phase, **more)


READY = copy(ImagePhase.READY, format=ImageFormat.QCOW2, virtual_size_bytes=2 * GIB, actual_size_bytes=GIB)
FAILED = copy(ImagePhase.FAILED, reason="ChecksumMismatch", message="The file has another digest.")

IMAGES = [
    ("nobody", ImageFacts(), "Pending", None, "False", "Pending", "No node holds a copy yet."),
    (
        "invalid",
        ImageFacts(problems=["spec.source: is bad: write"], reports={"a": READY}),
        "Failed",
        None,
        "False",
        "Invalid",
        "spec.source: is bad: write",
    ),
    (
        "asked",
        ImageFacts(reports={"a": copy(ImagePhase.PENDING, progress_percent=5)}),
        "Pending",
        None,
        "False",
        "Pending",
        "A node is about to import the image.",
    ),
    (
        "importing",
        ImageFacts(
            reports={"a": FAILED, "b": copy(ImagePhase.IMPORTING, progress_percent=42), "c": copy(ImagePhase.IMPORTING)}
        ),
        "Importing",
        "42%",
        "False",
        "Importing",
        "A node imports the image.",
    ),
    ("ready", ImageFacts(reports={"a": READY}), "Ready", "100%", "True", "Ready", "The image can be used."),
    (
        "ready here, failed there",
        ImageFacts(reports={"a": READY, "b": FAILED}),
        "Ready",
        "100%",
        "True",
        "Ready",
        "1 of 2 nodes hold the image; node b: The file has another digest.",
    ),
    (
        "failed",
        ImageFacts(reports={"a": FAILED}),
        "Failed",
        None,
        "False",
        "ChecksumMismatch",
        "Node a: The file has another digest.",
    ),
    (
        "failed without a word",
        ImageFacts(reports={"a": copy(ImagePhase.FAILED, reason="so; bad")}),
        "Failed",
        None,
        "False",
        "ImportFailed",
        "Node a: the import failed",
    ),
]


@pytest.mark.parametrize(
    ("facts", "phase", "progress", "ready", "reason", "message"),
    [row[1:] for row in IMAGES],
    ids=[r[0] for r in IMAGES],
)
def test_an_image(facts: ImageFacts, phase: str, progress: str | None, ready: str, reason: str, message: str) -> None:
    status = summarise_image(META, VMImageStatus(), facts, NOW)
    condition, *stalled = status.conditions
    assert [(c.type, c.status, c.reason) for c in stalled] == (
        [("Stalled", "True", reason)] if phase == "Failed" else []
    )
    assert (status.phase, status.progress) == (phase, progress)
    assert (condition.status.value, condition.reason, condition.message) == (ready, reason, message)
    assert status.observed_generation == condition.observed_generation == 2


def test_an_image_shows_its_copies_its_users_and_what_was_found() -> None:
    facts = ImageFacts(reports={"b": FAILED, "a": READY}, users=["shop/web-2", "shop/web-1"])
    shown = summarise_image(META, VMImageStatus(), facts, NOW).to_json_dict()
    since = {"unusedSince": NOW.isoformat().replace("+00:00", "Z")}
    assert shown["nodes"] == [{"name": "a", "phase": "Ready", **since}, {"name": "b", "phase": "Failed", **since}]
    assert (shown["users"], shown["userCount"]) == (["shop/web-1", "shop/web-2"], 2)
    assert (shown["format"], shown["virtualSize"], shown["actualSize"]) == ("qcow2", "2Gi", "1Gi")


def test_a_sample_of_users_is_enough() -> None:
    facts = ImageFacts(users=[f"shop/web-{n:04}" for n in range(1000)])
    status = summarise_image(META, VMImageStatus(), facts, NOW)
    assert (len(status.users), status.user_count) == (100, 1000)


def test_a_copy_is_unused_from_the_moment_its_last_machine_is_gone() -> None:
    used = summarise_image(META, VMImageStatus(), ImageFacts(reports={"a": READY}, user_nodes={"a"}), NOW)
    assert used.nodes[0].unused_since is None
    idle = summarise_image(META, used, ImageFacts(reports={"a": READY}), NOW)
    later = summarise_image(META, idle, ImageFacts(reports={"a": READY}), NOW + timedelta(hours=3))
    assert idle.nodes[0].unused_since == later.nodes[0].unused_since == NOW
    again = summarise_image(META, later, ImageFacts(reports={"a": READY}, user_nodes={"a"}), NOW)
    assert again.nodes[0].unused_since is None


def test_a_missing_secret_is_said_until_a_copy_is_there() -> None:
    waiting = Waiting("SecretNotFound", "spec.source.http.secretRef: Secret 'x' does not exist: create it")
    status = summarise_image(META, VMImageStatus(), ImageFacts(reports={"a": FAILED}, waiting=waiting), NOW)
    assert (status.conditions[0].reason, status.conditions[0].message) == ("SecretNotFound", waiting.message)
    status = summarise_image(META, VMImageStatus(), ImageFacts(reports={"a": READY}, waiting=waiting), NOW)
    assert status.conditions[0].reason == "Ready"


@pytest.mark.parametrize(
    ("users", "message"),
    [((), "The nodes remove their copies."), (("a/b",), "The image is removed once no machine uses it; 1 still do.")],
)
def test_an_image_being_deleted_says_what_it_waits_for(users: tuple[str, ...], message: str) -> None:
    status = summarise_image(DELETED, VMImageStatus(), ImageFacts(reports={"a": READY}, users=users), NOW)
    assert (status.conditions[0].reason, status.conditions[0].message) == ("Terminating", message)


def node_report(**more: Any) -> NodeReport:
    base = {
        "name": "node-a",
        "daemon_version": "0.1.0",
        "libvirt_version": "9.0.0",
        "qemu_version": "7.2.22",
        "hypervisor": "kvm",
        "architecture": "x86_64",
        "cpus": 8,
        "cpu_frequency_hz": 2_800_000_000,
        "memory_bytes": 16 * GIB,
        "numa": (NumaCell(cell=0, cpus="0-7", memory_bytes=16 * GIB, free_bytes=3 * GIB + 1, load_percent=40),),
        "pools": (PoolReport(name="default", capacity_bytes=100 * GIB, free_bytes=50 * GIB),),
    }
    return NodeReport.model_validate(base | more)


def node(status: Any = None, **spec: Any) -> VMNode:
    body = {"metadata": {"name": "node-a", "generation": 1}, "spec": spec}
    made = VMNode.model_validate(body)
    return made if status is None else made.model_copy(update={"status": status})


def test_a_node_shows_its_inventory_and_what_is_promised() -> None:
    facts = NodeFacts(report=node_report(), heard=True, address="192.0.2.1:8443", load=Load(3, 6, 3 * GIB))
    made = node(overcommit={"cpu": "2.5", "memory": "1.5"}, systemReserved={"memory": "2Gi"})
    shown = summarise_node(made, facts, NOW).to_json_dict()
    assert shown["address"] == "192.0.2.1:8443"
    assert shown["versions"] == {"daemon": "0.1.0", "libvirt": "9.0.0", "qemu": "7.2.22"}
    assert shown["capacity"] == {"cpus": 8, "memory": "16Gi"}
    assert shown["allocatable"] == {"cpus": 20, "memory": "21Gi", "reserved": "22400MHz"}
    assert shown["allocated"] == {"cpus": 6, "memory": "3Gi"}
    assert shown["machines"] == 3
    assert shown["cpuFrequency"] == "2800MHz"
    assert shown["numa"] == [{"cell": 0, "cpus": "0-7", "memory": "16Gi", "free": "3Gi", "load": "40%"}]
    (pool,) = shown["pools"]  # type: ignore[misc]
    assert (pool["name"], pool["capacity"], pool["free"]) == ("default", "100Gi", "50Gi")


@pytest.mark.parametrize(
    ("facts", "ready", "reason"),
    [
        (NodeFacts(problems=["spec: is bad: write"], report=node_report(), heard=True), "False", "Invalid"),
        (NodeFacts(report=node_report(), heard=False), "Unknown", "Unreachable"),
        (NodeFacts(heard=True), "False", "Connecting"),
        (NodeFacts(report=node_report(hypervisor_connected=False), heard=True), "False", "HypervisorUnavailable"),
        (NodeFacts(report=node_report(), heard=True), "True", "Ready"),
    ],
)
def test_a_node_is_ready(facts: NodeFacts, ready: str, reason: str) -> None:
    condition, schedulable, *stalled = summarise_node(node(), facts, NOW).conditions
    assert [c.type for c in stalled] == (["Stalled"] if reason == "Invalid" else [])
    assert schedulable.reason == ("Open" if ready == "True" else "NotReady")
    assert (condition.status.value, condition.reason) == (ready, reason)


@pytest.mark.parametrize(
    ("spec", "heard", "status", "reason", "said"),
    [
        ({}, True, "True", "Open", "takes new machines"),
        ({"maintenance": True}, True, "False", "Maintenance", "set spec.maintenance to false"),
        ({"maintenance": True}, False, "False", "Maintenance", "those that are there go on"),
        ({}, False, "False", "NotReady", "until it is Ready"),
        (
            {"taints": [{"key": "gpu", "value": "x", "effect": "NoSchedule"}]},
            True,
            "True",
            "Tainted",
            "tolerate gpu=x.",
        ),
        ({"taints": [{"key": "gpu", "effect": "PreferNoSchedule"}]}, True, "True", "Open", "takes new machines"),
    ],
)
def test_a_node_says_whether_it_takes_machines(
    spec: dict[str, Any], status: str, reason: str, said: str, *, heard: bool
) -> None:
    wanted = VMNode.model_validate({"metadata": {"name": "node-a", "generation": 2}, "spec": spec})
    found = summarise_node(wanted, NodeFacts(report=node_report(), heard=heard), NOW).conditions
    condition = next(c for c in found if c.type == "Schedulable")
    assert (condition.status.value, condition.reason) == (status, reason)
    assert said in condition.message


def test_a_node_cannot_fill_its_status() -> None:
    pools = tuple(PoolReport(name=f"p{n}", capacity_bytes=GIB, free_bytes=GIB) for n in range(1000))
    cells = tuple(NumaCell(cell=n, cpus="0" * 9999, memory_bytes=GIB) for n in range(1000))
    facts = NodeFacts(report=node_report(pools=pools, numa=cells, hypervisor="x" * 9999), heard=True)
    status = summarise_node(node(), facts, NOW)
    assert (len(status.pools), len(status.numa)) == (64, 64)
    assert len(status.model_dump_json()) < 30_000


def test_a_silent_node_keeps_its_inventory() -> None:
    known = summarise_node(node(), NodeFacts(report=node_report(), heard=True, address="a:1"), NOW)
    silent = summarise_node(node(known), NodeFacts(), NOW)
    assert (silent.capacity, silent.pools, silent.address) == (known.capacity, known.pools, "a:1")


@pytest.mark.parametrize(
    ("free_gib", "written_gib"), [(50, 50), (46, 50), (54, 50), (45, 45), (55, 55), (0, None), (100, 100)]
)
def test_free_space_is_written_when_it_has_moved_by_a_twentieth(free_gib: int, written_gib: int | None) -> None:
    known = summarise_node(node(), NodeFacts(report=node_report(), heard=True), NOW)
    pools = (PoolReport(name="default", capacity_bytes=100 * GIB, free_bytes=free_gib * GIB),)
    status = summarise_node(node(known), NodeFacts(report=node_report(pools=pools), heard=True), NOW)
    assert status.pools[0].free == (None if written_gib is None else written_gib * GIB)


def test_orphans_are_shown_and_said() -> None:
    status = summarise_node(node(), NodeFacts(report=node_report(), heard=True, orphans=["u1", "u2"]), NOW)
    assert status.orphans == ("u1", "u2")
    assert [c.type for c in status.conditions] == ["Orphans", "Ready", "Schedulable"]
    assert status.conditions[0].message.startswith("2 machines on the node have no object")


def test_a_class_is_valid_or_says_why_not() -> None:
    good = summarise_class(META, VMClassStatus(), (), NOW)
    bad = summarise_class(META, good, ["spec.cpu: too much: write less"], NOW)
    assert (good.conditions[0].status, good.conditions[0].reason) == ("True", "Valid")
    assert (bad.conditions[0].reason, bad.conditions[0].message) == ("Invalid", "spec.cpu: too much: write less")
    assert bad.observed_generation == 2
