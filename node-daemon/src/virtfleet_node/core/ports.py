"""What the agent needs from its edges, so that tests can stand in for them at our own border and nowhere else."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from virtfleet_api.image import CopyOrigin, Image, ImageReport
from virtfleet_api.machine import CloudInitFiles, MachineDisk, VolumeSource
from virtfleet_api.node_network import NodeNetwork
from virtfleet_api.pool import PoolSet
from virtfleet_api.report import MachineReport, NetworkReport, NodeReport, PoolReport
from virtfleet_api.snapshot import SnapshotReport
from virtfleet_node.core.captured import CapturedDisk, KeptSnapshot
from virtfleet_node.core.layers import Layer
from virtfleet_node.core.merging import KeptMerge
from virtfleet_node.core.plan_merge import AddLayer, MergeLive, Seen
from virtfleet_node.core.pool_rules import PoolSpace
from virtfleet_node.core.restoring import Restoring
from virtfleet_node.core.save_image import SaveImageHead
from virtfleet_node.core.snapshot_view import SnapshotView
from virtfleet_node.core.stored import ImageFiles, StoredDisk
from virtfleet_node.core.volumes import SeenVolume


class DiskStore(Protocol):
    """The disks of machines."""

    def read_disks(self, uid: str) -> tuple[StoredDisk, ...]:
        """Return the disks that exist of a machine, in any pool."""

    def read_captured(self, snapshot_uid: str, name: str) -> StoredDisk | None:
        """Return a disk as a snapshot has it."""

    async def prepare_disk(self, uid: str, disk: MachineDisk, image: ImageFiles | None) -> StoredDisk:
        """Make the disk unless it is there; `image` is what its source names, None for a blank one."""

    async def grow_disk(self, uid: str, disk: MachineDisk) -> None:
        """Make a disk that no guest uses as large as its document says, if it is smaller."""

    @property
    def clones(self) -> "CloneStore":
        """What makes disks from disks of other machines."""

    @property
    def captures(self) -> "CaptureStore":
        """What captures read and write."""

    @property
    def restores(self) -> "RestoreStore":
        """What restores read and write."""

    @property
    def merges(self) -> "MergeStore":
        """What merges layers of disks."""

    def check_room(self, pool: str, files: Iterable[Path]) -> None:
        """Refuse what needs as much of a pool as these files take, when that is not there."""

    async def copy_whole(self, disk: StoredDisk, progress: Callable[[float], None]) -> None:
        """Copy a disk that no guest uses, with its image's content, into a file beside it."""

    def replace_disk(self, uid: str, pool: str, name: str) -> None:
        """Put that file in the disk's place."""

    def remove_partial(self, uid: str, pool: str, name: str) -> None:
        """Remove that file."""

    def wipe_disk(
        self, uid: str, pool: str, name: str, progress: Callable[[float], None], stopped: Callable[[], bool]
    ) -> None:
        """Overwrite the disk if it is there, then remove it, unless it is stopped before."""

    def remove_leftovers(self, uid: str) -> None:
        """Remove unfinished work of a machine that is to go."""

    def remove_disk(self, uid: str, pool: str, name: str) -> None:
        """Remove the disk if it is there."""


class CloneStore(Protocol):
    """The files of copies of other machines' disks. Disks are named by (pool, name)."""

    def begin(self, uid: str, disks: Iterable[MachineDisk]) -> dict[tuple[str, str], Path]:
        """Return the file to write for each disk."""

    def finish(self, uid: str, source_uid: str) -> bool:
        """Let the disks of a copy appear that an earlier process has completed; tell whether there was one."""

    def commit(self, uid: str, source_uid: str, disks: tuple[MachineDisk, ...]) -> None:
        """Let all disks of a complete copy appear."""

    def check(self, disk: MachineDisk, source: StoredDisk) -> None:
        """Refuse a disk that is smaller than what it is copied from."""

    def check_room(self, needs: Iterable[tuple[str, Iterable[Path]]]) -> None:
        """Refuse copies into pools, each of as much as its files take, that have no room there."""

    def check_left(self, pool: str) -> None:
        """Refuse to go on with copies into a pool that has no room left for them."""

    async def copy(
        self,
        source: StoredDisk,
        image: ImageFiles | None,
        disk: MachineDisk,
        target: Path,
        progress: Callable[[float], None],
    ) -> None:
        """Copy a disk that no guest uses."""

    async def make_targets(
        self, sources: Mapping[tuple[str, str], StoredDisk], targets: Mapping[tuple[str, str], Path]
    ) -> None:
        """Make the empty files that QEMU copies a running guest's disks into."""

    async def wait_closed(self, target: Path) -> None:
        """Wait until QEMU has let a finished copy go."""

    async def grow(self, disk: MachineDisk, target: Path, capacity_bytes: int) -> None:
        """Make a finished copy as large as its disk shall be."""


class CaptureStore(Protocol):
    """The files of captures."""

    def read_all(self) -> tuple[KeptSnapshot, ...]:
        """Return every snapshot, after removing what is left of some that were being removed."""

    def of_machine(self, machine_uid: str) -> tuple[KeptSnapshot, ...]:
        """Return the snapshots of a machine."""

    def get(self, uid: str) -> KeptSnapshot | None:
        """Return a snapshot."""

    def begin(self, pool: str, kept: KeptSnapshot) -> None:
        """Keep one that is to be captured; durable when this returns."""

    def write(self, kept: KeptSnapshot) -> None:
        """Keep what has become of it; NotFoundError when it is gone."""

    def remove(self, kept: KeptSnapshot) -> None:
        """Remove a snapshot, and the layers that nobody needs any more."""

    def sizes(self, kept: KeptSnapshot) -> Mapping[CapturedDisk, int]:
        """Return what the layers of its disks take, in bytes."""

    def memory_bytes(self, kept: KeptSnapshot) -> int | None:
        """Return what its memory image takes; None without one."""

    def memory_file(self, uid: str) -> Path:
        """Return where the memory image is to be."""

    def has_begun(self, uid: str) -> bool:
        """Tell whether libvirt has begun to write the memory image."""

    def remove_memory(self, uid: str) -> None:
        """Remove what there is of the memory image of one that was not captured."""

    def is_whole(self, kept: KeptSnapshot) -> bool:
        """Tell whether all files that it names are there."""

    def check_room(self, uid: str, needed: int) -> None:
        """Refuse a memory image that may take so many bytes when its pool has no room for it."""

    def check_left(self, uid: str) -> None:
        """Refuse to go on with a memory image whose pool has no room left."""

    async def make_layers(self, machine_uid: str, disks: Iterable[StoredDisk]) -> Mapping[str, str]:
        """Make an empty layer above each disk, and return its file by the disk's."""

    async def remove_layers(self, machine_uid: str, in_use: Collection[Path]) -> None:
        """Remove the layers above those that the running guest of a machine writes."""

    def plain_images(self) -> tuple[str, ...]:
        """Return the snapshots whose memory image is not compressed."""

    async def compress(self, uid: str) -> None:
        """Compress a memory image with little priority; until that is done it is as it was."""


class RestoreStore(Protocol):
    """The files of restores."""

    def view(self, uid: str, snapshot_uid: str) -> SnapshotView | None:
        """Return a snapshot as a restore of a machine sees it."""

    def captured_disks(self, snapshot_uid: str) -> tuple[str, tuple[StoredDisk, ...]]:
        """Return whose disks a snapshot holds, and these with all that they lie on."""

    def hold(self, uid: str, restoring: Restoring | None) -> None:
        """Keep what a machine's disks were before a restore that is under way."""

    async def make_layers(self, uid: str, restoring: Restoring) -> None:
        """Make the new layers, those that are not there."""

    def drop_layers(self, uid: str, restoring: Restoring) -> None:
        """Remove the new layers."""

    def read_head(self, snapshot_uid: str) -> SaveImageHead:
        """Return the head of a snapshot's memory image."""

    def memory_file(self, snapshot_uid: str) -> Path:
        """Return the memory image of a snapshot."""

    def copy_memory(self, uid: str, snapshot_uid: str, describe: Callable[[SaveImageHead], str]) -> Path:
        """Make a copy of a memory image with another description, in a machine's folder."""

    def remove_copy(self, uid: str) -> None:
        """Remove that copy, if it is there."""

    def tidy(self, uid: str) -> None:
        """Remove layers that nobody needs any more."""


class MergeStore(Protocol):
    """The files of layers that are merged."""

    def concerns(self, uid: str, disks: Iterable[StoredDisk]) -> bool:
        """Tell whether there may be something to fold for a machine with these disks."""

    def look(self) -> Seen | None:
        """Return all layers and who names them, without the guests; None while that is not known."""

    def check_room(self, pool: str, needed: int) -> None:
        """Refuse a merge that may take so many bytes more of its pool when that has no room."""

    async def merge(self, lower: Path, upper: Path, rate: int, progress: Callable[[float], None]) -> None:
        """Write the upper layer into the lower one."""

    def take_place(self, lower: Path, upper: Path) -> None:
        """Have the lower layer, into which the upper one is written, take its place."""

    def remove(self, layer: Layer) -> None:
        """Remove a layer that nothing lies on."""

    async def add(self, step: AddLayer) -> Path:
        """Make the empty layer above a disk."""

    def begin(self, step: MergeLive) -> None:
        """Keep that QEMU is about to merge."""

    def begun(self, uid: str) -> tuple[KeptMerge, ...]:
        """Return the merges by QEMU that are kept of a machine."""

    async def recover(self, uid: str, kept: KeptMerge, *, running: bool) -> None:
        """Bring to an end what QEMU no longer works on."""


class ExportDisk(Protocol):
    """Copies disks of this node's machines and snapshots into files that need no other."""

    async def __call__(self, origin: CopyOrigin, pool: str, target: Path, progress: Callable[[float], None]) -> None:
        """Write a new file in the pool, and tell the percentage; NodeError, and whatever is there is of no use."""


class ImageStore(Protocol):
    """The images that this node holds."""

    def copy_disks_with(self, export: ExportDisk) -> None:
        """Take what makes images from disks of machines and snapshots."""

    def copied_from(self, machine_uid: str) -> tuple[str, ...]:
        """Return namespace/name of the images that are still to be made from a machine's disks."""

    async def put(self, image: Image) -> ImageReport:
        """Take over what the operator wants of an image; the work goes on after the answer."""

    def reports(self) -> tuple[ImageReport, ...]:
        """Return a report of each image."""

    def files(self, image_uid: str) -> ImageFiles | None:
        """Return the files of an image that is ready."""

    def subscribe(self, callback: Callable[[str], None]) -> None:
        """Call back with the UID of each image whose report changed."""

    async def start(self) -> None:
        """Take up what an earlier process left."""

    async def take_up(self) -> None:
        """Take up the images of pools that have come since."""

    async def stop(self) -> None:
        """End all work; what is partial is taken up at the next start."""


class MediaStore(Protocol):
    """Cloud-init media in the daemon's state directory."""

    async def write_cloud_init(self, uid: str, files: CloudInitFiles) -> Path:
        """Make the NoCloud medium unless it is there."""

    def path(self, uid: str, digest: str) -> Path | None:
        """Return the medium with this digest if it is there."""

    def remove(self, uid: str) -> None:
        """Remove everything that is kept of a machine."""


class Volumes(Protocol):
    """The volumes of Kubernetes' that are on this node."""

    def look(self, source: VolumeSource) -> SeenVolume:
        """Look for a volume. Blocks."""

    def make(self, source: VolumeSource, size_bytes: int | None) -> None:
        """Make the file in a volume unless it is there, and let QEMU reach it; ConflictError if it cannot. Blocks."""


class Pools(Protocol):
    """The storage pools of the node."""

    def reports(self) -> tuple[PoolReport, ...]:
        """Return what was last seen of each pool."""

    def space(self, pool: str) -> PoolSpace:
        """Return size and free space of a pool as they are now."""


class WantedPools(Protocol):
    """The pools that the operator wants beside those of the configuration file."""

    def put(self, wanted: PoolSet) -> frozenset[str]:
        """Make the pools those that are wanted; return the names of those that are new. Blocks."""

    def tidy(self) -> None:
        """Let pools go that have become empty, and look at all that there are. Blocks."""


class Switch(Protocol):
    """The node's part of the virtual switches: its Open vSwitch."""

    @property
    def problem(self) -> str:
        """Say why no card can be plugged in, as a sentence; empty when cards can be."""

    @property
    def user_space(self) -> bool:
        """Tell whether the datapath is the one in user space."""

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call back when something about it has changed."""

    async def start(self) -> None:
        """Take up what an earlier process kept, and look once."""

    async def look(self) -> None:
        """Look once, and put right what differs from what is wanted."""

    async def put(self, wanted: NodeNetwork) -> NetworkReport:
        """Have the node's network be so; durable when this returns."""

    async def run(self) -> None:
        """Look again and again, until cancelled."""


class Journal(Protocol):
    """Where changed reports go: the watch streams of operators."""

    def publish_machine(self, report: MachineReport) -> None:
        """Tell of a machine that changed."""

    def publish_image(self, report: ImageReport) -> None:
        """Tell of an image that changed."""

    def remove_image(self, uid: str) -> None:
        """Tell that nothing of an image is left."""

    def publish_snapshot(self, report: SnapshotReport) -> None:
        """Tell of a snapshot that changed."""

    def remove_snapshot(self, uid: str) -> None:
        """Tell that nothing of a snapshot is left."""

    def publish_node(self, report: NodeReport) -> None:
        """Tell that the inventory changed."""


class GuestStream(Protocol):
    """A connection to a running guest, both ways."""

    async def read(self) -> bytes:
        """Return what came next; empty at the end."""

    async def write(self, data: bytes) -> None:
        """Send what somebody types or a viewer says; ConflictError once the guest has ended."""

    async def close(self) -> None:
        """Let it go."""


class ConsoleStream(GuestStream, Protocol):
    """The serial console."""


class DisplayStream(GuestStream, Protocol):
    """The display: one connection to QEMU's VNC server."""
