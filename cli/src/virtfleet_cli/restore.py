"""The VMRestore that `kubectl vm restore` makes, and what is said of one. Pure: objects in, manifest and text out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from virtfleet_api.names import API_VERSION, GROUP
from virtfleet_api.vm_restore import RestorePhase
from virtfleet_cli.describe import age, clean
from virtfleet_cli.errors import CliError
from virtfleet_cli.progress import Share
from virtfleet_cli.snapshot import condition_message
from virtfleet_cli.waiting import Stand

Object = Mapping[str, Any]

_MAX_DIGITS: Final = 9


@dataclass(frozen=True)
class Target:
    """What a snapshot is restored to: its machine, or `count` new ones."""

    machine: str | None = None
    prefix: str | None = None
    count: int = 1
    reset_machine_id: bool = False


def check_target(snapshot: Object, target: Target) -> None:
    """Refuse to bring a machine back to a snapshot of another one: CliError."""
    name, of = snapshot["metadata"]["name"], snapshot["spec"]["virtualMachine"]
    if target.machine not in {None, of}:
        raise CliError(
            f"VMSnapshot {name} is of VirtualMachine {of}, not {target.machine}; "
            f"make new machines from it with `kubectl vm restore --new PREFIX {name}`."
        )


def build_restore(
    snapshot: Object, target: Target, *, memory: bool = True, snapshot_first: bool = False
) -> dict[str, Any]:
    """Return the manifest, which the API server names; what is as by default is left out."""
    name = snapshot["metadata"]["name"]
    wanted: dict[str, Any] = {"virtualMachine": target.machine}
    if target.prefix is not None:
        wanted = {"newVirtualMachines": {"namePrefix": target.prefix, "count": target.count}}
        if target.reset_machine_id:
            wanted["newVirtualMachines"]["resetMachineId"] = True
    spec: dict[str, Any] = {"snapshot": name, "target": wanted}
    if not memory:
        spec["memory"] = False
    if snapshot_first:
        spec["snapshotFirst"] = True
    metadata = {"generateName": f"{name}-", "namespace": snapshot["metadata"].get("namespace", "default")}
    return {"apiVersion": API_VERSION, "kind": "VMRestore", "metadata": metadata, "spec": spec}


def ask_to_go_on(snapshot: Object, machine: str, now: datetime, *, snapshot_first: bool) -> str:
    """Return the question before a machine is brought back."""
    taken = (snapshot.get("status") or {}).get("creationTime")
    when = f", {age(datetime.fromisoformat(taken), now)} old" if taken else ""
    lost = "its present state is captured first" if snapshot_first else "what it has written and done since is lost"
    return clean(
        f"VirtualMachine {machine} goes back to VMSnapshot {snapshot['metadata']['name']}{when}; {lost}. Go on?"
    )


def look_at_restore(restore: Object) -> Stand:
    """Tell how far a restore is."""
    status = restore.get("status") or {}
    done, _, of = str(status.get("done") or "").partition("/")
    share = Share(int(done), int(of), f"{done}/{of}") if _is_number(done) and _is_number(of) and int(of) else None
    ended = status.get("phase") in {RestorePhase.SUCCEEDED, RestorePhase.FAILED}
    waiting = (clean(m["message"]) for m in status.get("machines") or () if m.get("message"))
    return Stand(ended=ended, share=share, said=condition_message(restore, "Complete") or next(waiting, ""))


def describe_restored(restore: Object) -> str:
    """Name the machines that are restored, a line for each, and the snapshot of the state before."""
    return "\n".join(_restored(restore))


def describe_failure(restore: Object) -> str:
    """Say why a restore that has ended failed, with the words about each machine; nothing of one that succeeded."""
    status = restore.get("status") or {}
    if status.get("phase") == RestorePhase.SUCCEEDED:
        return ""
    metadata = restore["metadata"]
    what = f"VMRestore {metadata.get('namespace', 'default')}/{metadata['name']}"
    lines = [f"{what} failed: {condition_message(restore, 'Complete') or 'nobody says why'}"]
    left = (m for m in status.get("machines") or () if m.get("phase") != RestorePhase.SUCCEEDED)
    lines.extend(f"{machine.get('name')}: {machine.get('message') or machine.get('phase')}" for machine in left)
    return "\n".join(map(clean, lines))


def _restored(restore: Object) -> Iterator[str]:
    status = restore.get("status") or {}
    verb = "created" if restore["spec"]["target"].get("newVirtualMachines") else "restored"
    for machine in status.get("machines") or ():
        if machine.get("phase") == RestorePhase.SUCCEEDED:
            warm = ", its guest goes on where it was" if machine.get("warm") else ""
            note = f" ({machine['message']})" if warm and machine.get("message") else ""
            yield clean(f"virtualmachine.{GROUP}/{machine.get('name')} {verb}{warm}{note}")
    if before := status.get("snapshotBefore"):
        yield clean(f"vmsnapshot.{GROUP}/{before} has the state before")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
