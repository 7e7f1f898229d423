"""Images made from a machine's disk: what is waited for, which node is asked, and that it is asked once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from virtfleet_api.image import DiskOrigin, ImageReport
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_image import ImagePhase, VMImage
from virtfleet_operator.core.admission import review_write
from virtfleet_operator.core.copies import plan_copies
from virtfleet_operator.core.images import Supply, compile_image
from virtfleet_operator.core.place import Candidate, PoolRoom
from virtfleet_operator.core.sources import Source, find_image_source
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
    found = find_image_source(made(), objects)
    assert found == Source(MACHINE_UID, "fast", "a")
    assert plan_copies(made(), {"a"}, {}, NODES, timedelta(days=1), NOW).hold == ("a",)
    origin = DiskOrigin(machine="web-1", name="root", machine_uid=MACHINE_UID, pool="fast")
    assert compile_image(made(), Supply(disk=found)).disk == origin
    assert compile_image(made(), Supply()).disk == DiskOrigin(machine="web-1", name="root")


def test_no_node_is_asked_before_the_disk_is_there(machine: Any, made: Any, objects: Any) -> None:
    assert plan_copies(made(), set(), {}, NODES, timedelta(days=1), NOW).hold == ()
    said = find_image_source(made(), objects)
    assert isinstance(said, Waiting)
    assert (said.reason, "no VirtualMachine 'web-1' in this namespace" in said.message) == ("SourceNotFound", True)
    for unmade in (web(machine, disks=()), web(machine, node=None)):
        objects.sources["shop", "web-1"] = unmade
        said = find_image_source(made(), objects)
        assert isinstance(said, Waiting)
        assert (said.reason, "has not been made yet" in said.message) == ("SourceNotReady", True)


def test_a_machine_that_is_deleted_is_copied_only_where_that_has_begun(machine: Any, made: Any, objects: Any) -> None:
    objects.sources["shop", "web-1"] = web(machine, deletionTimestamp="2026-11-23T09:00:00Z")
    said = find_image_source(made(), objects)
    assert isinstance(said, Waiting)
    assert "is being deleted" in said.message
    assert find_image_source(made(), objects, {"b"}) == said
    assert find_image_source(made(), objects, {"a"}) == Source(MACHINE_UID, "fast", "a")


def test_a_disk_is_copied_once_whatever_becomes_of_the_copies(machine: Any, made: Any, objects: Any) -> None:
    objects.sources["shop", "web-1"] = web(machine)
    ready = {"checksum": f"sha256:{DIGEST}", "phase": "Ready", "nodes": [{"name": "a", "phase": "Ready"}]}
    assert find_image_source(made(**ready), objects) is None
    lost = find_image_source(made(checksum=f"sha256:{DIGEST}"), objects)
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
