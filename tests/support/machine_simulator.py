"""A node as small as it can be: the plan's actions do to it what libvirt and the file system would do. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import Machine, MachineDisk, VolumeSource
from virtfleet_node.core.actions import (
    Action,
    AttachDisk,
    ChangeMedium,
    CloneDisks,
    Destroy,
    DetachDisk,
    FlattenDisk,
    GrowDisk,
    LimitDisk,
    Pause,
    PrepareDisk,
    PrepareVolume,
    RemoveDisk,
    RemoveMedia,
    RequestShutdown,
    ResizeDisk,
    Resume,
    Start,
    Undefine,
    WipeDisk,
    WriteRecord,
)
from virtfleet_node.core.desired.io_tune import Tuning, build_tuning, effective
from virtfleet_node.core.observed import (
    Asking,
    AttachedDisk,
    DomainState,
    Observed,
    ObservedDomain,
    OffReason,
    ShutdownRequests,
)
from virtfleet_node.core.places import Places, assign, disk_key
from virtfleet_node.core.plan import Plan, plan
from virtfleet_node.core.record import Life, Record, Stored
from virtfleet_node.core.stored import StoredDisk
from virtfleet_node.core.volumes import SeenVolume, claim_key

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
LARGE = 1 << 62
IMAGE = "00000000-0000-4000-8000-0000000000cc"


@dataclass
class Node:
    """One machine's part of a node, and everything that ever happened to it."""

    stored: Stored | None
    state: DomainState
    off_reason: OffReason = OffReason.UNKNOWN
    disks: set[tuple[str, str]] = field(default_factory=set)
    agent: bool = False
    deaf: bool = False
    """The guest ignores every request: to shut down, and to let go of a disk or a medium."""
    media: bool = True
    now: datetime = EPOCH
    shutdown: ShutdownRequests = field(default_factory=ShutdownRequests)
    starts: int = 0
    done: list[str] = field(default_factory=list)
    capacity: dict[tuple[str, str], int] = field(default_factory=dict)
    """Of disks whose size matters."""
    removed: set[tuple[str, str]] = field(default_factory=set)
    wiped: set[tuple[str, str]] = field(default_factory=set)
    tuning: dict[tuple[str, str], Tuning] = field(default_factory=dict)
    """The running guest's disks, with their limits."""
    drives: dict[str, str | None] = field(default_factory=dict)
    """The running guest's drives, with the UID of what is in them."""
    asked: dict[str, Asking] = field(default_factory=dict)
    backed: set[tuple[str, str]] = field(default_factory=set)
    """Disks that lie on an image."""
    kubelet: int = 0
    """Looks until the kubelet has mounted the volumes."""
    made: set[str] = field(default_factory=set)
    """Claims in whose volumes the file is."""
    volumes: dict[str, tuple[str, Tuning]] = field(default_factory=dict)
    """The running guest's volumes, with which claim they are of and their limits."""
    clones: list[tuple[str, ...]] = field(default_factory=list)
    """Names of disks that were copied from other machines, together at one moment."""

    @property
    def active(self) -> bool:
        """Tell whether there is a QEMU."""
        return self.state not in {DomainState.ABSENT, DomainState.OFF}

    def observe(self, desired: Machine) -> Observed:
        """Return what the daemon would see."""
        domain = ObservedDomain(
            self.state,
            self.off_reason,
            agent_connected=self.agent and self.active,
            stored=self.stored,
            machine_type="pc-q35-7.2",
            disks=(*self._attached_disks(), *self._attached_drives(), *self._attached_volumes()) if self.active else (),
            free_ports=frozenset(range(1, 64)) - self._taken_ports(desired),
        )
        return Observed(
            domain=domain,
            disks=tuple(
                StoredDisk(
                    pool,
                    name,
                    f"/{pool}/{name}",  # type: ignore[arg-type] # never opened
                    ImageFormat.QCOW2,
                    self.capacity.get((pool, name), LARGE),
                    IMAGE if (pool, name) in self.backed else None,
                )
                for pool, name in sorted(self.disks)
            ),
            volumes=self._look(desired),
            ready_images=desired.image_uids() | {IMAGE},
            media_digest=desired.hardware.cloud_init_digest if self.media else None,
            shutdown=self.shutdown,
            asked=dict(self.asked),
        )

    def _attached_disks(self) -> tuple[AttachedDisk, ...]:
        return tuple(
            AttachedDisk(f"/{pool}/{name}", f"{pool}-{name}", cache="none", tuning=tuple(tuning.items()))
            for (pool, name), tuning in self.tuning.items()
        )

    def _attached_drives(self) -> tuple[AttachedDisk, ...]:
        return tuple(
            AttachedDisk(f"/default/images/{uid}/disk" if uid else "", f"drive-{name}", bus="sata", drive=name)
            for name, uid in self.drives.items()
        )

    def _attached_volumes(self) -> tuple[AttachedDisk, ...]:
        return tuple(
            AttachedDisk(
                f"/old-pod/{claim}",
                f"volume-{name}",
                cache="none",
                volume=name,
                claim=claim,
                tuning=tuple(tuning.items()),
            )
            for name, (claim, tuning) in self.volumes.items()
        )

    def _look(self, desired: Machine) -> dict[str, SeenVolume]:
        self.kubelet -= self.kubelet > 0
        if self.kubelet:
            return {}
        found = ((disk.name, source_of(disk).claim) for disk in desired.hardware.volumes)
        return {name: SeenVolume(Path("/kubelet") / claim, is_made=claim in self.made) for name, claim in found}

    def _taken_ports(self, desired: Machine) -> frozenset[int]:
        ports = assign(self.stored.places if self.stored else Places(), desired.hardware).ports
        names = (*(name for _, name in self.tuning), *self.volumes)
        return frozenset(ports[key] for name in names if (key := disk_key(name)) in ports)

    def plan(self, desired: Machine) -> Plan:
        """Return the plan for what is seen now."""
        return plan(desired, self.observe(desired), self.now)

    def apply(self, desired: Machine, action: Action) -> None:
        """Do what an action does."""
        self.done.append(str(action))
        match action:
            case WriteRecord(record):
                self._write(record)
            case Start():
                self._start(desired, action)
            case RequestShutdown():
                self.shutdown = replace(self.shutdown, count=self.shutdown.count + 1, last=self.now)
                if not self.deaf and self.state is DomainState.RUNNING:
                    self.end(OffReason.SHUTDOWN)
            case RemoveMedia():
                self.media = False
            case PrepareVolume(_, source):
                assert not self.kubelet, "a file was made where no volume is mounted"
                self.made.add(source.claim)
            case AttachDisk() | DetachDisk() | ChangeMedium():
                self._apply_to_guest(action)
            case CloneDisks() | WipeDisk() | FlattenDisk():
                self._apply_long(action)
            case PrepareDisk() | GrowDisk() | ResizeDisk() | LimitDisk() | RemoveDisk():
                self._apply_to_disk(action)
            case _:
                self._apply_plain(action)

    def end(self, reason: OffReason) -> None:
        """Let the guest end."""
        self.state, self.off_reason, self.shutdown = DomainState.OFF, reason, ShutdownRequests()

    def panic(self) -> None:
        """Let the guest panic: QEMU holds it."""
        self.state, self.shutdown = DomainState.CRASHED, ShutdownRequests()

    def pass_time(self, seconds: float) -> None:
        """Let time go by."""
        self.now += timedelta(seconds=seconds)

    def _apply_long(self, action: Action) -> None:
        match action:
            case CloneDisks(_, disks):
                self._clone(disks)
            case WipeDisk(pool, name):
                self.disks.discard((pool, name))
                self.wiped.add((pool, name))
            case FlattenDisk(pool, name, target):
                assert (target is not None) == self.active, "a disk was flattened in the wrong way"
                self.backed.discard((pool, name))

    def _apply_to_guest(self, action: Action) -> None:
        assert self.active, f"{action} without a guest"
        match action:
            case AttachDisk(disk) if disk.is_volume:
                assert source_of(disk).claim in self.made, "a volume was attached that is not there"
                assert disk.name not in self.volumes, "a volume was attached twice"
                self.volumes |= _volumes([disk])
            case AttachDisk(disk):
                assert (disk.pool, disk.name) in self.disks, "a disk was attached that is not there"
                assert (disk.pool, disk.name) not in self.tuning, "a disk was attached twice"
                self.tuning[disk.pool, disk.name] = effective(build_tuning(disk))
            case DetachDisk(target):
                self._ask(target)
                if not self.deaf and target.startswith("volume-"):
                    del self.volumes[target.removeprefix("volume-")]
                elif not self.deaf:
                    del self.tuning[_disk_of(target)]
            case ChangeMedium(target, drive):
                assert drive.name in self.drives, "a medium was put into a drive that the guest does not have"
                self._ask(target)
                if not self.deaf:
                    self.drives[drive.name] = drive.medium_uid

    def _ask(self, target: str) -> None:
        before = self.asked.get(target)
        self.asked[target] = before.again(self.now) if before else Asking(self.now, self.now)

    def _apply_to_disk(self, action: Action) -> None:
        match action:
            case PrepareDisk(disk):
                assert not disk.is_volume, "a volume was made in a pool"
                self.disks.add((disk.pool, disk.name))
                self.capacity[disk.pool, disk.name] = disk.size_bytes or LARGE
            case GrowDisk(disk):
                assert not self.active, "the file of a running guest's disk was changed"
                self.capacity[disk.pool, disk.name] = disk.size_bytes or LARGE
            case ResizeDisk(target, size_bytes):
                assert self.active
                self.capacity[_disk_of(target)] = size_bytes
            case RemoveDisk(pool, name):
                self.disks.discard((pool, name))
                self.removed.add((pool, name))
            case LimitDisk(target, tuning) if target.startswith("volume-"):
                name = target.removeprefix("volume-")
                self.volumes[name] = (self.volumes[name][0], effective(dict(tuning)))
            case LimitDisk(target, tuning):
                assert _disk_of(target) in self.tuning, "a disk was limited that the guest does not have"
                self.tuning[_disk_of(target)] = effective(dict(tuning))

    def _clone(self, disks: tuple[MachineDisk, ...]) -> None:
        assert not {(disk.pool, disk.name) for disk in disks} & self.disks, "a disk was copied over one that exists"
        self.disks |= {(disk.pool, disk.name) for disk in disks}
        self.clones.append(tuple(disk.name for disk in disks))

    def _apply_plain(self, action: Action) -> None:
        if isinstance(action, Destroy):
            if self.active:
                self.end(OffReason.DESTROYED)
        elif isinstance(action, Pause):
            self.state = DomainState.PAUSED
        elif isinstance(action, Resume):
            self.state = DomainState.RUNNING
        elif isinstance(action, Undefine):
            self.state, self.stored = DomainState.ABSENT, None

    def _write(self, record: Record) -> None:
        assert self.stored is not None, "a record was written for a machine that is not defined"
        self.stored = self.stored.model_copy(update={"record": record})

    def _start(self, desired: Machine, action: Start) -> None:
        assert self.state is DomainState.OFF, f"a machine that is {self.state} was started"
        assert {(d.pool, d.name) for d in desired.hardware.own_disks} <= self.disks, "started without its disks"
        claims = {source_of(disk).claim for disk in desired.hardware.volumes}
        assert claims <= self.made, "started without its volumes"
        self._write(action.record)
        self.volumes = _volumes(desired.hardware.volumes)
        self.tuning = {(d.pool, d.name): effective(build_tuning(d)) for d in desired.hardware.own_disks}
        self.drives = {d.name: d.medium_uid for d in desired.hardware.drives}
        self.asked = {}
        self.state = DomainState.PAUSED if action.paused else DomainState.RUNNING
        self.starts += 1
        self._write(action.record.model_copy(update={"life": Life.RUNNING}))


def source_of(disk: MachineDisk) -> VolumeSource:
    """Return which volume a disk is."""
    assert isinstance(disk.source, VolumeSource)
    return disk.source


def _volumes(disks: Iterable[MachineDisk]) -> dict[str, tuple[str, Tuning]]:
    return {disk.name: (claim_key(source_of(disk)), effective(build_tuning(disk))) for disk in disks}


def _disk_of(target: str) -> tuple[str, str]:
    pool, name = target.split("-", 1)
    return pool, name


def converge(node: Node, desired: Machine, rounds: int = 60) -> int:
    """Plan and carry out until there is nothing left to do, waiting when the plan waits; return the rounds taken."""
    for number in range(rounds):
        wanted = node.plan(desired)
        for action in wanted.actions:
            node.apply(desired, action)
        if not wanted.actions and wanted.wake_at is None:
            return number
        if not wanted.actions and at_goal(node, desired) and not node.kubelet:
            return number
        if wanted.wake_at is not None:
            node.now = max(node.now, wanted.wake_at)
    raise AssertionError(f"no end after {rounds} rounds: {node.done[-12:]}")


def at_goal(node: Node, desired: Machine) -> bool:
    """Tell whether the node is where the document wants it, the restart policy aside."""
    goals = {
        "Running": DomainState.RUNNING,
        "Paused": DomainState.PAUSED,
        "Stopped": DomainState.OFF,
        "Absent": DomainState.ABSENT,
    }
    return node.state is goals[desired.run]
