"""What `kubectl vm snapshot` makes, and what it says of what became of it."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from virtfleet_api.vm_snapshot import SnapshotMode, VMSnapshot
from virtfleet_cli.progress import Share
from virtfleet_cli.snapshot import (
    build_snapshot,
    describe_captured,
    describe_failure,
    look_at_snapshot,
    resource_name,
    snapshot_name,
)
from virtfleet_cli.waiting import Stand

WEB = {"metadata": {"name": "web-1", "namespace": "shop"}}


def captured(message: str = "", ready: str = "False", **status: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "message": message}
    return {"metadata": {"name": "s", "namespace": "shop"}, "status": {"conditions": [condition], **status}}


def test_a_name_has_the_time_in_utc() -> None:
    noon = datetime(2026, 3, 1, 13, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    assert snapshot_name("web-1", noon) == "web-1-20260301-120405"


def test_a_name_fits_also_for_the_longest_machine() -> None:
    name = snapshot_name("a" * 236 + "." + "a" * 16, datetime(2026, 3, 1, tzinfo=UTC))
    assert len(name) <= VMSnapshot.name_max_length
    assert name.endswith("a-20260301-000000")


def test_a_manifest_says_what_differs_from_the_default() -> None:
    assert build_snapshot(WEB, "s") == {
        "apiVersion": "virtfleet.io/v1alpha1",
        "kind": "VMSnapshot",
        "metadata": {"name": "s", "namespace": "shop"},
        "spec": {"virtualMachine": "web-1", "mode": "Memory"},
    }
    disks = ["tmp", "swap", "tmp"]
    full = build_snapshot(WEB, "s", mode=SnapshotMode.DISK, quiesce=False, exclude_disks=disks, retain=True)
    assert full["spec"] == {
        "virtualMachine": "web-1",
        "mode": "Disk",
        "quiesce": False,
        "excludeDisks": ["tmp", "swap"],
        "deletionPolicy": "Retain",
    }
    for manifest in (build_snapshot(WEB, "s"), full):
        VMSnapshot.model_validate(manifest)


def test_it_is_named_as_kubectl_names_it() -> None:
    assert resource_name("VMSnapshot", captured()) == "vmsnapshot.virtfleet.io/s"


@pytest.mark.parametrize(
    ("status", "stand"),
    [
        ({}, Stand()),
        ({"phase": "Capturing", "progress": "42%"}, Stand(share=Share(42, 100, "42%"))),
        ({"phase": "Capturing", "progress": "999%"}, Stand(share=Share(100, 100, "999%"))),
        ({"phase": "Capturing", "progress": "half"}, Stand()),
        ({"phase": "Capturing", "progress": "²%"}, Stand()),
        ({"phase": "Capturing", "progress": "1" * 5000}, Stand()),
        ({"phase": "Pending", "message": "Wait\x1b"}, Stand(said="Wait\N{REPLACEMENT CHARACTER}")),
        ({"phase": "Ready", "ready": "True", "message": "It can be restored."}, Stand(ended=True)),
        ({"phase": "Failed"}, Stand(ended=True)),
        ({"phase": "Deleting"}, Stand(ended=True)),
    ],
)
def test_how_far_it_is(status: dict[str, Any], stand: Stand) -> None:
    assert look_at_snapshot(captured(**status)) == stand


def test_nobody_has_looked_at_a_new_snapshot() -> None:
    assert look_at_snapshot({"metadata": {"name": "s"}}) == Stand()


def test_the_end_says_size_how_and_pause() -> None:
    ready = captured(
        phase="Ready",
        ready="True",
        size="812Mi",
        memorySize="300Mi",
        pauseMilliseconds=41,
        indications=["Online", "Memory"],
    )
    assert describe_captured(ready) == (
        "VMSnapshot shop/s is Ready and takes 812MiB, 300MiB of it memory. "
        "It was captured from the running guest, with its memory. The guest stood still for 41 ms."
    )
    assert describe_failure(ready) == ""


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, "VMSnapshot shop/s is Ready."),
        ({"size": "0", "memorySize": "0"}, "VMSnapshot shop/s is Ready."),
        (
            {"indications": ["Online", "CrashConsistent"]},
            "It was captured from the running guest, with disks as after a power failure.",
        ),
        (
            {"indications": ["Offline", "Later\n"]},
            "It was captured while the machine was off, Later\N{REPLACEMENT CHARACTER}.",
        ),
        ({"pauseMilliseconds": 0}, "The guest stood still for 0 ms."),
    ],
)
def test_what_nobody_knows_is_not_said(status: dict[str, Any], said: str) -> None:
    assert describe_captured(captured(phase="Ready", **status)).endswith(said)


@pytest.mark.parametrize(
    ("phase", "message", "said"),
    [
        ("Failed", "Node a: no space\x07", "VMSnapshot shop/s failed: Node a: no space\N{REPLACEMENT CHARACTER}"),
        ("Failed", "", "VMSnapshot shop/s failed: nobody says why"),
        ("Deleting", "It goes.", "VMSnapshot shop/s is being deleted."),
    ],
)
def test_what_cannot_be_used_is_said(phase: str, message: str, said: str) -> None:
    assert describe_failure(captured(message, phase=phase)) == said
