"""A node with layers and a snapshot, as small as it can be: what restores do to it. Pure."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from machine_simulator import Node
from virtfleet_api.machine import Machine
from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_node.core.actions import Action, Start
from virtfleet_node.core.captured import Captured, CapturedDisk, KeptSnapshot
from virtfleet_node.core.layers import build_name
from virtfleet_node.core.observed import DomainState, Observed, OffReason
from virtfleet_node.core.places import Places
from virtfleet_node.core.plan_restore import given_up, restored_warm
from virtfleet_node.core.plan_woken import kept_machine_id
from virtfleet_node.core.restore_actions import (
    BeginRestore,
    DropLayers,
    MakeLayers,
    SetClock,
    SetMachineId,
    StartWarm,
    TidyLayers,
)
from virtfleet_node.core.restoring import Restoring
from virtfleet_node.core.snapshot_view import SnapshotView

SNAPSHOT = "00000000-0000-4000-8000-0000000000dd"

OLD = "old"
"""What is on a disk before."""

FROM_SNAPSHOT = "snapshot"


def snapshot_of(desired: Machine, *, memory: bool = True) -> KeptSnapshot:
    """Return a snapshot of all disks of a machine."""
    document = MachineSnapshot(uid=SNAPSHOT, namespace="default", name="snap", machine_uid=desired.uid)
    disks = tuple(
        CapturedDisk(name=disk.name, pool=disk.pool, file=build_name(disk.name, 0), capacity_bytes=1 << 20)
        for disk in desired.hardware.own_disks
    )
    captured = Captured(
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
        hardware=desired.hardware,
        places=Places(),
        disks=disks,
        memory=memory,
    )
    return KeptSnapshot(document=document, captured=captured)


@dataclass
class RestoringNode(Node):
    """One machine's part of a node, whose disks are layers above those of a snapshot."""

    kept: KeptSnapshot | None = None
    busy: int = 0
    """Looks for which something else works on the disks."""
    agent_says: str = ""
    """Why the guest's agent writes no machine-id; empty when it does."""
    machine_ids: int = 0
    """Times it was asked to."""
    outcomes: list[str] = field(default_factory=list)
    """What becomes of starts from memory, in their order: "refused", "lost" (cut off before), "cut" (cut off after)."""
    layers: dict[tuple[str, str], dict[int, str]] = field(default_factory=dict)
    """What is on the layers of each disk above the snapshot's, by number."""
    warm: int = 0
    """Times that a guest went on from memory."""

    def contents(self) -> set[str]:
        """Return what is on the disks."""
        return {layers[max(layers)] for layers in self.layers.values()}

    def observe(self, desired: Machine) -> Observed:
        """Return what the daemon would see."""
        for disk in self.disks:
            self.layers.setdefault(disk, {1: OLD})
        seen = super().observe(desired)
        paths = {f"/{pool}/{name}": self._path(pool, name) for pool, name in self.disks}
        attached = tuple(replace(disk, file=str(paths.get(disk.file, disk.file))) for disk in seen.domain.disks)
        self.busy = max(0, self.busy - 1)
        return replace(
            seen,
            domain=replace(seen.domain, disks=attached),
            disks=tuple(replace(disk, path=paths[str(disk.path)]) for disk in seen.disks),
            snapshot=self._view(),
            disks_in_use=self.busy > 0,
        )

    def apply(self, desired: Machine, action: Action) -> None:
        """Do what an action does."""
        match action:
            case BeginRestore(record):
                self._write(record)
            case MakeLayers(restoring):
                self._make(restoring)
            case DropLayers(restoring):
                assert not self.active, "the disks of a running guest were removed"
                for layer in restoring.layers:
                    self.layers[layer.pool, layer.name].pop(_number(layer.file), None)
            case StartWarm():
                self._start_warm(desired, action)
            case TidyLayers():
                self._tidy()
            case SetClock():
                assert self.stored is not None
                self._write(self.stored.record.model_copy(update={"clock_behind": False}))
            case SetMachineId():
                assert self.stored is not None
                assert self.state is DomainState.RUNNING
                self.machine_ids += 1
                self._write(kept_machine_id(self.stored.record, self.agent_says))
            case _:
                assert not isinstance(action, Start) or self._restoring is None, "a start in the middle of a restore"
                super().apply(desired, action)
                return
        self.done.append(str(action))

    @property
    def _restoring(self) -> Restoring | None:
        return self.stored.record.restoring if self.stored else None

    def _make(self, restoring: Restoring) -> None:
        assert not self.active, "disks were put back under a running guest"
        assert self._restoring == restoring, "disks were put back that nobody knows of"
        for layer in restoring.layers:
            self.layers[layer.pool, layer.name].setdefault(_number(layer.file), FROM_SNAPSHOT)

    def _start_warm(self, desired: Machine, action: StartWarm) -> None:
        assert self.state is DomainState.OFF
        restoring = action.record.restoring
        assert restoring is not None
        assert self.contents() == {FROM_SNAPSHOT}, "memory and disks of two moments"
        outcome = self.outcomes.pop(0) if self.outcomes else ""
        if outcome == "lost":
            return
        if outcome == "refused":
            self._write(given_up(action.record, "it was refused"))
            return
        self._write(action.record)
        self.tuning = {(d.pool, d.name): {} for d in desired.hardware.own_disks}
        self.drives = {d.name: d.medium_uid for d in desired.hardware.drives}
        self.asked = {}
        self.state, self.agent = DomainState.PAUSED, True
        if outcome == "cut":
            return
        self.warm += 1
        self._write(restored_warm(action.record, restoring))
        self._tidy()

    def _tidy(self) -> None:
        assert self._restoring is None, "the disks from before were removed too early"
        self.layers = {disk: {max(found): found[max(found)]} for disk, found in self.layers.items()}

    def kill_qemu(self) -> None:
        """Let QEMU be killed."""
        if self.active:
            self.end(OffReason.FAILED)

    def _view(self) -> SnapshotView | None:
        if self.kept is None:
            return None
        disks = self.kept.captured.disks if self.kept.captured else ()
        return SnapshotView(
            kept=self.kept,
            below={disk.name: Path(disk.pool) / disk.file for disk in disks},
            next_files={(pool, name): build_name(name, max(self.layers[pool, name]) + 1) for pool, name in self.disks},
        )

    def _path(self, pool: str, name: str) -> Path:
        return Path(f"/{pool}/{build_name(name, max(self.layers[pool, name]))}")


def _number(file: str) -> int:
    return int(file.split(".")[1])
