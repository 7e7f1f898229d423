"""Images made from disks of machines and snapshots: what is waited for, which node is asked, and that only once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from virtfleet_api.image import DiskOrigin, Image, ImageReport, SnapshotOrigin
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_image import ImagePhase, VMImage
from virtfleet_api.vm_snapshot import VMSnapshot
from virtfleet_operator.core.admission import review_write
from virtfleet_operator.core.copies import plan_copies
from virtfleet_operator.core.image_origins import find_image_origin
from virtfleet_operator.core.images import Supply, compile_image
from virtfleet_operator.core.place import Candidate, PoolRoom
from virtfleet_operator.core.snapshot_disks import SnapshotDisk
from virtfleet_operator.core.sources import Source
from virtfleet_operator.core.summarise import ImageFacts, summarise_image
from virtfleet_operator.core.verdict import Waiting

MACHINE_UID = "99999999-2222-3333-4444-555555555555"
DIGEST = "c" * 64
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
NODES = [Candidate(name, pools={"default": PoolRoom()}) for name in ("a", "b", "c")]
DISK = {"disk": {"virtualMachine": "web-1", "name": "root"}}
MADE = {"name": "root", "pool": "fast", "capacity": "2Gi", "target": "vda"}


@pytest.fixture
def made(image: Callable[..., VMImage]) -> Callable[..., VMImage]:
    def make(**status: Any) -> VMImage:
        return image(name="golden", status=status, source=DISK)

    return make


def web(
    machine: Callable[..., VirtualMachine], *, node: str | None = "a", disks: tuple[Any, ...] = (MADE,), **meta: Any
) -> VirtualMachine:
    status = {"disks": list(disks)} | ({"nodeName": node} if node else {})
    drive = {"name": "cd", "bus": "cdrom", "source": {"iso": {"name": "setup"}}}
    root = {"name": "root", "size": "2Gi", "source": {"blank": {}}}
    return machine(status, {"uid": MACHINE_UID} | meta, disks=[root, drive])


def test_the_node_of_the_machine_makes_the_first_copy(machine: Any, made: Any, objects: Any) -> None:
    objects.sources["shop", "web-1"] = web(machine)
    found = find_image_origin(made(), objects)
    assert found == Source(MACHINE_UID, "fast", "a")
    assert plan_copies(made(), {"a"}, {}, NODES, timedelta(days=1), NOW).hold == ("a",)
    origin = DiskOrigin(machine="web-1", name="root", machine_uid=MACHINE_UID, pool="fast")
    assert compile_image(made(), Supply(origin=found)).disk == origin
    assert compile_image(made(), Supply()).disk == DiskOrigin(machine="web-1", name="root")


def test_no_node_is_asked_before_the_disk_is_there(machine: Any, made: Any, objects: Any) -> None:
    assert plan_copies(made(), set(), {}, NODES, timedelta(days=1), NOW).hold == ()
    said = find_image_origin(made(), objects)
    assert isinstance(said, Waiting)
    assert (said.reason, "no VirtualMachine 'web-1' in this namespace" in said.message) == ("SourceNotFound", True)
    for unmade in (web(machine, disks=()), web(machine, node=None)):
        objects.sources["shop", "web-1"] = unmade
        said = find_image_origin(made(), objects)
        assert isinstance(said, Waiting)
        assert (said.reason, "has not been made yet" in said.message) == ("SourceNotReady", True)


def test_a_machine_that_is_deleted_is_copied_only_where_that_has_begun(machine: Any, made: Any, objects: Any) -> None:
    objects.sources["shop", "web-1"] = web(machine, deletionTimestamp="2026-11-23T09:00:00Z")
    said = find_image_origin(made(), objects)
    assert isinstance(said, Waiting)
    assert "is being deleted" in said.message
    assert find_image_origin(made(), objects, {"b"}) == said
    assert find_image_origin(made(), objects, {"a"}) == Source(MACHINE_UID, "fast", "a")


def test_a_disk_is_copied_once_whatever_becomes_of_the_copies(machine: Any, made: Any, objects: Any) -> None:
    objects.sources["shop", "web-1"] = web(machine)
    ready = {"checksum": f"sha256:{DIGEST}", "phase": "Ready", "nodes": [{"name": "a", "phase": "Ready"}]}
    assert find_image_origin(made(**ready), objects) is None
    lost = find_image_origin(made(checksum=f"sha256:{DIGEST}"), objects)
    assert isinstance(lost, Waiting)
    assert lost.reason == "CopiesLost"
    image = made(**ready)
    status = summarise_image(image.metadata, image.status, ImageFacts(made_once=True, waiting=lost), NOW)
    assert (status.checksum, status.phase) == (f"sha256:{DIGEST}", ImagePhase.PENDING)
    assert "make another VMImage" in status.conditions[0].message
    report = ImageReport(uid=image.metadata.uid, namespace="n", name="i", phase=ImagePhase.READY, sha256=DIGEST)
    facts = ImageFacts(made_once=True, reports={"a": report})
    assert summarise_image(image.metadata, image.status, facts, NOW).phase is ImagePhase.READY


def test_a_disk_that_the_machine_does_not_have_is_refused(machine: Any, objects: Any) -> None:
    def review(name: str, old: dict[str, Any] | None = None, **status: Any) -> Any:
        source = {"disk": {"virtualMachine": "web-1", "name": name}}
        meta = {"name": "golden", "namespace": "shop", "uid": MACHINE_UID}
        body = {"kind": "VMImage", "metadata": meta, "spec": {"source": source, "shared": True}, "status": status}
        return review_write(body, old and {**body, "spec": old}, objects, NOW)

    assert "no VirtualMachine 'web-1'" in review("root").warnings[0]
    objects.sources["shop", "web-1"] = web(machine)
    assert review("root") == review("root", {"source": DISK})
    assert not review("root").warnings
    for wrong in ("data", "cd"):
        said = f"spec.source.disk.name: VirtualMachine 'web-1' has no disk '{wrong}': write one of root"
        assert review(wrong).refusal.problems == (said,)
    imported = {"phase": "Ready", "checksum": f"sha256:{DIGEST}", "nodes": [{"name": "a", "phase": "Ready"}]}
    refused = review("data", {"source": DISK}, **imported).refusal.problems
    assert refused[0].startswith("spec.source: cannot change once the image is imported")


CAPTURED = {"snapshot": {"name": "before", "disk": "root"}}
SNAPSHOT_UID = "88888888-2222-3333-4444-555555555555"
READY = {
    "phase": "Ready",
    "readyToUse": True,
    "nodeName": "a",
    "creationTime": "2026-11-23T09:00:00Z",
    "disks": [{"name": "root", "pool": "fast", "capacity": "2Gi"}],
}


def before(status: dict[str, Any], **meta: Any) -> VMSnapshot:
    metadata = {"name": "before", "namespace": "shop", "uid": SNAPSHOT_UID, **meta}
    spec = {"virtualMachine": "web-1"}
    return VMSnapshot.model_validate({"kind": "VMSnapshot", "metadata": metadata, "spec": spec, "status": status})


@pytest.fixture
def captured(image: Callable[..., VMImage]) -> Callable[..., VMImage]:
    return lambda **status: image(name="golden", status=status, source=CAPTURED)


def test_the_node_of_the_snapshot_makes_the_first_copy(captured: Any, objects: Any) -> None:
    objects.snapshots = (before(READY),)
    found = find_image_origin(captured(), objects)
    assert found == SnapshotDisk(SNAPSHOT_UID, "root", "a")
    assert plan_copies(captured(), set(), {}, NODES, timedelta(days=1), NOW).hold == ()
    told: Image = compile_image(captured(), Supply(origin=found))
    assert told.snapshot == SnapshotOrigin(snapshot="before", name="root", snapshot_uid=SNAPSHOT_UID)
    other = compile_image(captured(), Supply())
    assert other.snapshot == SnapshotOrigin(snapshot="before", name="root")
    assert (told.disk, told.content()) == (None, other.content())
    digest = f"sha256:{DIGEST}"
    assert find_image_origin(captured(checksum=digest, nodes=[{"name": "a", "phase": "Ready"}]), objects) is None
    lost = find_image_origin(captured(checksum=digest), objects)
    assert isinstance(lost, Waiting)
    assert (lost.reason, lost.message.startswith("spec.source.snapshot: ")) == ("CopiesLost", True)


def test_an_image_waits_for_its_snapshot_and_says_so(captured: Any, objects: Any) -> None:
    deleted = before(READY, deletionTimestamp="2026-11-23T09:30:00Z")
    for there, reason, said in (
        ((), "SnapshotNotFound", "VMSnapshot 'before' is not there: create it"),
        ((before({"phase": "Failed", "nodeName": "a"}),), "SnapshotNotFound", "failed, and holds nothing"),
        ((before({"phase": "Capturing", "nodeName": "a"}),), "SnapshotNotReady", "is not Ready yet"),
        ((before({**READY, "disks": []}),), "SnapshotNotFound", "has no disk 'root': it has none"),
        ((deleted,), "SnapshotNotFound", "is being deleted: name another"),
    ):
        objects.snapshots = there
        found = find_image_origin(captured(), objects)
        assert isinstance(found, Waiting)
        assert (found.reason, said in found.message) == (reason, True)
    assert find_image_origin(captured(), objects, {"b"}) == found
    assert isinstance(find_image_origin(captured(), objects, {"a"}), SnapshotDisk), "the copy has begun"


def test_a_disk_that_the_snapshot_does_not_have_is_refused(objects: Any) -> None:
    def review(disk: str) -> Any:
        meta = {"name": "golden", "namespace": "shop", "uid": MACHINE_UID}
        source = {"snapshot": {"name": "before", "disk": disk}}
        return review_write({"kind": "VMImage", "metadata": meta, "spec": {"source": source}}, None, objects, NOW)

    assert "VMSnapshot 'before' is not there" in review("data").warnings[0]
    objects.snapshots = (before({"phase": "Capturing"}),)
    assert review("data").refusal is None
    objects.snapshots = (before(READY),)
    said = "spec.source.snapshot.disk: VMSnapshot 'before' has no disk 'data': write one of root"
    assert review("data").refusal.problems == (said,)
    assert review("root").refusal is None
