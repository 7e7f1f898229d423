"""The VMSnapshot that `kubectl vm snapshot` makes, and what is said of one. Pure: objects in, manifest and text out."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from virtfleet_api.names import API_VERSION, GROUP
from virtfleet_api.quantity import Bytes
from virtfleet_api.vm_snapshot import (
    SnapshotDeletionPolicy,
    SnapshotIndication,
    SnapshotMode,
    SnapshotPhase,
    VMSnapshot,
)
from virtfleet_cli.describe import clean
from virtfleet_cli.ports import amount
from virtfleet_cli.progress import Share
from virtfleet_cli.waiting import Stand

Object = Mapping[str, Any]

_WHOLE: Final = 100
_MAX_DIGITS: Final = 3

_HOW: Final = {
    SnapshotIndication.ONLINE: "from the running guest",
    SnapshotIndication.OFFLINE: "while the machine was off",
    SnapshotIndication.MEMORY: "with its memory",
    SnapshotIndication.GUEST_AGENT: "with file systems frozen by the guest agent",
    SnapshotIndication.CRASH_CONSISTENT: "with disks as after a power failure",
}


def snapshot_name(machine: str, now: datetime) -> str:
    """Return the name of a snapshot that the user gives none: `<machine>-<yyyymmdd-hhmmss>`, the time in UTC."""
    suffix = f"-{now.astimezone(UTC):%Y%m%d-%H%M%S}"
    return machine[: VMSnapshot.name_max_length - len(suffix)].rstrip("-.") + suffix


def build_snapshot(
    machine: Object,
    name: str,
    *,
    mode: SnapshotMode = SnapshotMode.MEMORY,
    quiesce: bool = True,
    exclude_disks: Sequence[str] = (),
    retain: bool = False,
) -> dict[str, Any]:
    """Return the manifest; what is as by default is left out."""
    spec: dict[str, Any] = {"virtualMachine": machine["metadata"]["name"], "mode": str(mode)}
    if not quiesce:
        spec["quiesce"] = False
    if exclude_disks:
        spec["excludeDisks"] = list(dict.fromkeys(exclude_disks))
    if retain:
        spec["deletionPolicy"] = str(SnapshotDeletionPolicy.RETAIN)
    metadata = {"name": name, "namespace": machine["metadata"].get("namespace", "default")}
    return {"apiVersion": API_VERSION, "kind": "VMSnapshot", "metadata": metadata, "spec": spec}


def resource_name(kind: str, made: Object) -> str:
    """Name an object as kubectl does: `vmsnapshot.virtfleet.io/web-1-before`."""
    return f"{kind.lower()}.{GROUP}/{made['metadata']['name']}"


def look_at_snapshot(snapshot: Object) -> Stand:
    """Tell how far a snapshot is."""
    status = snapshot.get("status") or {}
    ended = status.get("phase") in {SnapshotPhase.READY, SnapshotPhase.FAILED, SnapshotPhase.DELETING}
    percent = str(status.get("progress") or "").removesuffix("%")
    known = percent.isascii() and percent.isdigit() and len(percent) <= _MAX_DIGITS
    share = Share(min(int(percent), _WHOLE), _WHOLE, f"{percent}%") if known else None
    return Stand(ended=ended, share=share, said=condition_message(snapshot))


def describe_failure(snapshot: Object) -> str:
    """Say why a snapshot that has ended cannot be used; nothing of one that can."""
    phase = (snapshot.get("status") or {}).get("phase")
    if phase == SnapshotPhase.READY:
        return ""
    if phase == SnapshotPhase.DELETING:
        return f"{_what(snapshot)} is being deleted."
    return f"{_what(snapshot)} failed: {condition_message(snapshot) or 'nobody says why'}"


def describe_captured(snapshot: Object) -> str:
    """Say what a snapshot takes, how it was captured, and how long the guest stood still for it."""
    status = snapshot.get("status") or {}
    memory = size_text(status.get("memorySize"))
    sizes = [size_text(status.get("size")), f"{memory} of it memory" if memory else ""]
    size = ", ".join(part for part in sizes if part)
    how = ", ".join(_HOW.get(word, clean(word)) for word in status.get("indications") or ())
    pause = status.get("pauseMilliseconds")
    sentences = (
        f"{_what(snapshot)} is Ready" + (f" and takes {size}." if size else "."),
        f"It was captured {how}." if how else "",
        f"The guest stood still for {clean(pause)} ms." if pause is not None else "",
    )
    return " ".join(sentence for sentence in sentences if sentence)


def condition_message(found: Object, type_: str = "Ready") -> str:
    """Return the sentence of a condition that does not hold, without control characters; empty when it holds."""
    conditions = (found.get("status") or {}).get("conditions") or ()
    messages = (c.get("message") for c in conditions if c.get("type") == type_ and c.get("status") != "True")
    return clean(next(messages, None) or "")


def size_text(quantity: object) -> str:
    """Write a quantity as people read it; nothing if there is none."""
    try:
        return amount(Bytes.parse(str(quantity)))
    except ValueError:
        return ""  # absent, or a disk of 0 bytes


def _what(snapshot: Object) -> str:
    metadata = snapshot["metadata"]
    return clean(f"VMSnapshot {metadata.get('namespace', 'default')}/{metadata['name']}")
