"""A node without a hypervisor: the node daemon's own server, epoch guard and journal, with a simulated daemon behind.

What the operator sees of it (TLS, epochs, streams, problems) is the real thing; only the guests are made up. It stands
at the port `virtfleet_node.api.ports.Daemon`.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from simulated_snapshots import SimulatedSnapshots
from virtfleet_api.image import Image, ImageFormat, ImageReport
from virtfleet_api.machine import ImageDiskSource, Machine, RetainedSource, Run, VolumeSource
from virtfleet_api.node_api import HEARTBEAT_SECONDS, InterfaceList, InterfaceTraffic, PoolList, WatchEvent
from virtfleet_api.node_network import NodeNetwork
from virtfleet_api.pool import PoolSet
from virtfleet_api.report import (
    DiskReport,
    InterfaceReport,
    MachineReport,
    NetworkReport,
    NodeReport,
    Phase,
    PoolReport,
    RestoreReport,
    RetainedDisk,
    StopReason,
    UplinkReport,
)
from virtfleet_api.snapshot import MachineSnapshot, SnapshotReport
from virtfleet_api.virtual_machine import ReclaimPolicy
from virtfleet_api.vm_image import ImagePhase, ImageType
from virtfleet_node.api import server as server_module
from virtfleet_node.api.epoch import EpochGuard
from virtfleet_node.api.journal import Journal
from virtfleet_node.api.metrics import ApiMetrics
from virtfleet_node.api.server import Server
from virtfleet_node.core.errors import ConflictError, NotFoundError, UnavailableError
from virtfleet_node.core.ports import ConsoleStream, DisplayStream

GIB = 1 << 30

_RESTED = {Run.RUNNING: Phase.RUNNING, Run.PAUSED: Phase.PAUSED, Run.STOPPED: Phase.STOPPED}


def build_node_report(name: str, cpus: int = 8, memory_bytes: int = 16 * GIB) -> NodeReport:
    """Return the inventory of a made-up host."""
    return NodeReport(
        name=name,
        daemon_version="0.1.0",
        libvirt_version="9.0.0",
        qemu_version="7.2.0",
        hypervisor="qemu",
        architecture="x86_64",
        cpus=cpus,
        cpu_frequency_hz=2_000_000_000,
        memory_bytes=memory_bytes,
        pools=(PoolReport(name="default", capacity_bytes=100 * GIB, free_bytes=90 * GIB),),
    )


@dataclass
class SimulatedDaemon:
    """Makes every machine so at once; `settle` is how long a start takes."""

    name: str
    journal: Journal
    settle_seconds: float = 0.0
    image_phase: ImagePhase = ImagePhase.READY
    refusal: Exception | None = None
    machines: dict[str, Machine] = field(default_factory=dict)
    reports: dict[str, MachineReport] = field(default_factory=dict)
    images: dict[str, ImageReport] = field(default_factory=dict)
    kept: dict[str, tuple[RetainedDisk, ...]] = field(default_factory=dict)
    """Disks that stay of machines that are gone, by their UID."""
    instructions: list[Machine | Image] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    wanted_pools: PoolSet | None = None
    pools: tuple[PoolReport, ...] = ()
    wanted_network: NodeNetwork | None = None
    network: NetworkReport | None = None
    snapshots: SimulatedSnapshots = field(default_factory=SimulatedSnapshots)
    restores_end: bool = True
    """A restore is done as soon as it is asked for."""
    restored: dict[str, RestoreReport] = field(default_factory=dict)
    """The last restore of each machine, by its UID."""
    consoles: dict[str, ConsoleStream] = field(default_factory=dict)
    """Made-up consoles, by the UID of their machine."""

    async def put_snapshot(self, wanted: MachineSnapshot) -> SnapshotReport:
        """Capture a machine at once, or remove what was captured."""
        if self.refusal:
            raise self.refusal
        machine = self.reports.get(wanted.machine_uid)
        return self.snapshots.put(wanted, machine.disks if machine else None, self.journal)

    def list_snapshots(self) -> tuple[SnapshotReport, ...]:
        """Return all snapshots."""
        return tuple(self.snapshots.reports.values())

    async def put_machine(self, machine: Machine) -> MachineReport:
        """Take over a machine."""
        self.instructions.append(machine)
        if self.refusal:
            raise self.refusal
        if machine.run is Run.ABSENT:
            return self._remove(machine)
        self.machines[machine.uid] = machine
        self._take_over(machine)
        self._restore(machine)
        report = self._report(machine, self._passing(machine))
        self._settle_later(machine)
        return report

    def list_machines(self) -> tuple[MachineReport, ...]:
        """Return all machines."""
        return tuple(self.reports.values())

    def get_machine(self, uid: str) -> MachineReport:
        """Return one machine."""
        if uid not in self.reports:
            raise NotFoundError(f"There is no machine {uid}.")
        return self.reports[uid]

    async def delete_machine(self, uid: str) -> MachineReport:
        """Remove a machine by what is stored of it."""
        if uid not in self.machines:
            raise NotFoundError(f"There is no machine {uid}.")
        return self._remove(self.machines[uid])

    async def put_image(self, image: Image) -> ImageReport:
        """Take over an image."""
        self.instructions.append(image)
        if image.present:
            report = self._image_report(image)
            self.images[image.uid] = report
            self.journal.publish_image(report)
            return report
        self.images.pop(image.uid, None)
        self.journal.remove_image(image.uid)
        return ImageReport(uid=image.uid, namespace=image.namespace, name=image.name, phase=ImagePhase.PENDING)

    def list_images(self) -> tuple[ImageReport, ...]:
        """Return all images."""
        return tuple(self.images.values())

    async def put_pools(self, wanted: PoolSet) -> PoolList:
        """Have these pools, each of 10 GiB."""
        self.wanted_pools = wanted
        report = build_node_report(self.name)
        made = (PoolReport(name=p.name, type=p.type, capacity_bytes=10 * GIB, free_bytes=GIB) for p in wanted.items)
        self.pools = (*report.pools, *made)
        self.journal.publish_node(self.node_report())
        return PoolList(items=self.pools)

    async def put_network(self, wanted: NodeNetwork) -> NetworkReport:
        """Have this network, connected."""
        self.wanted_network = wanted
        interfaces = dict.fromkeys(uplink.interface for uplink in wanted.uplinks)
        uplinks = tuple(UplinkReport(interface=name) for name in interfaces)
        self.network = NetworkReport(connected=True, datapath="system", uplinks=uplinks, firewall=bool(wanted.peers))
        self.journal.publish_node(self.node_report())
        return self.network

    async def list_interfaces(self, uid: str) -> InterfaceList:
        """Return the cards of a machine; a hundred bytes came to each and ten came from it."""
        cards = self.get_machine(uid).interfaces
        counted = {"received_bytes": 100, "received_packets": 1, "sent_bytes": 10, "sent_packets": 1}
        items = (
            InterfaceTraffic(name=card.name, mac=card.mac, port=card.port, state=card.state, **counted)
            for card in cards
        )
        return InterfaceList(items=tuple(items))

    def node_report(self) -> NodeReport:
        """Return the inventory."""
        report = build_node_report(self.name).model_copy(update={"network": self.network})
        if not self.pools:
            return report
        disks = [disk for machine in self.reports.values() for disk in machine.disks]
        return report.model_copy(update={"pools": tuple(_with_disks(pool, disks) for pool in self.pools)})

    async def open_console(self, uid: str) -> ConsoleStream:
        """There is no guest, so there is no console but what a test has made up."""
        if uid not in self.consoles:
            raise ConflictError(f"The machine {uid} does not run.")
        return self.consoles[uid]

    async def open_display(self, uid: str) -> DisplayStream:
        """There is no guest, so there is no display."""
        raise ConflictError(f"The machine {uid} does not run.")

    async def read_console_log(self, uid: str, max_bytes: int) -> bytes:
        """There is no guest, so it said nothing."""
        raise UnavailableError(f"The machine {uid} wrote nothing in {max_bytes} bytes.")

    def end_restore(self, uid: str, message: str = "", *, warm: bool = True) -> None:
        """Have the restore of a machine end; with a message it has failed."""
        last = self.restored[uid].model_copy(update={"done": True, "warm": warm and not message, "message": message})
        self.restored[uid] = last
        self._publish(self.reports[uid].model_copy(update={"restore": last}))

    def crash(self, uid: str) -> None:
        """Have a guest end by itself, and stay off."""
        report = self.reports[uid].model_copy(
            update={"phase": Phase.STOPPED, "last_stop": StopReason.GUEST_SHUTDOWN, "reason": "GuestShutdown"}
        )
        self._publish(report)

    def invent(self, uid: str, namespace: str, name: str) -> None:
        """Report a machine that nobody asked for."""
        self._publish(MachineReport(uid=uid, namespace=namespace, name=name, phase=Phase.RUNNING, vcpus=64))

    def _remove(self, machine: Machine) -> MachineReport:
        self.machines.pop(machine.uid, None)
        last = self.reports.pop(machine.uid, None)
        made = last.disks if last else ()
        found = (RetainedDisk(name=d.name, pool=d.pool, capacity_bytes=d.capacity_bytes) for d in made)
        there = (*self.kept.pop(machine.uid, ()), *found)
        doomed = {d.name for d in machine.hardware.disks if d.reclaim_policy is not ReclaimPolicy.RETAIN}
        if left := tuple(disk for disk in there if disk.name not in doomed):
            self.kept[machine.uid] = left
        report = MachineReport(
            uid=machine.uid, namespace=machine.namespace, name=machine.name, phase=Phase.ABSENT, kept_disks=left
        )
        if last:
            self.journal.publish_machine(report)
        return report

    def _take_over(self, machine: Machine) -> None:
        """Give disks that machines have left behind to this one."""
        for disk in machine.hardware.disks:
            if isinstance(disk.source, RetainedSource):
                left = self.kept.pop(disk.source.machine_uid, ())
                self.kept[disk.source.machine_uid] = tuple(d for d in left if d.name != disk.source.name)

    def _restore(self, machine: Machine) -> None:
        """Restore a machine once."""
        asked, last = machine.restore, self.restored.get(machine.uid)
        if asked is not None and (last is None or last.token != asked.token):
            done = self.restores_end
            self.restored[machine.uid] = RestoreReport(token=asked.token, done=done, warm=done and asked.memory)

    def _passing(self, machine: Machine) -> Phase:
        old = self.reports.get(machine.uid)
        rested = _RESTED[machine.run]
        if old and old.phase is rested:
            return rested
        return Phase.STOPPING if machine.run is Run.STOPPED and old else Phase.STARTING

    def _rest(self, machine: Machine) -> Phase:
        """Return where a machine comes to rest; it starts once its volumes are held."""
        old, rested = self.reports.get(machine.uid), _RESTED[machine.run]
        sources = (disk.source for disk in machine.hardware.volumes)
        missing = any(isinstance(source, VolumeSource) and source.pod_uid is None for source in sources)
        is_off = old is None or old.phase is not Phase.RUNNING
        return Phase.PROVISIONING if missing and is_off and rested is not Phase.STOPPED else rested

    def _settle_later(self, machine: Machine) -> None:
        async def settle() -> None:
            await asyncio.sleep(self.settle_seconds)
            if self.machines.get(machine.uid) == machine:
                self._report(machine, self._rest(machine))

        task = asyncio.get_running_loop().create_task(settle())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _started_at(self, uid: str, phase: Phase) -> datetime | None:
        """Return when the guest started: a guest that runs on is not started again by another instruction."""
        if phase is not Phase.RUNNING:
            return None
        old = self.reports.get(uid)
        return old.started_at if old and old.phase is phase else datetime.now(UTC).replace(microsecond=0)

    def _report(self, machine: Machine, phase: Phase) -> MachineReport:
        hardware = machine.hardware
        report = MachineReport(
            uid=machine.uid,
            namespace=machine.namespace,
            name=machine.name,
            generation=machine.generation,
            phase=phase,
            started_at=self._started_at(machine.uid, phase),
            machine_type="pc-q35-7.2",
            cpu_model="qemu64",
            vcpus=hardware.vcpus,
            reservation_hz=hardware.scheduling.reservation_hz,
            memory_bytes=hardware.memory_bytes,
            disks=tuple(
                DiskReport(
                    name=disk.name,
                    pool=disk.pool,
                    target=f"vd{chr(ord('a') + number)}",
                    capacity_bytes=disk.size_bytes or GIB,
                    backing_image_uid=disk.source.image_uid if isinstance(disk.source, ImageDiskSource) else None,
                )
                for number, disk in enumerate(disk for disk in hardware.disks if not disk.is_volume)
            ),
            interfaces=tuple(InterfaceReport(name=card.name, mac=card.mac) for card in hardware.interfaces),
            restore=self.restored.get(machine.uid),
        )
        return self._publish(report)

    def _publish(self, report: MachineReport) -> MachineReport:
        self.reports[report.uid] = report
        self.journal.publish_node(self.node_report())
        self.journal.publish_machine(report)
        return report

    def _image_report(self, image: Image) -> ImageReport:
        ready = self.image_phase is ImagePhase.READY
        return ImageReport(
            uid=image.uid,
            namespace=image.namespace,
            name=image.name,
            phase=self.image_phase,
            progress_percent=100 if ready else 10,
            format=(ImageFormat.KERNEL if image.type is ImageType.KERNEL else ImageFormat.QCOW2) if ready else None,
            virtual_size_bytes=GIB if ready else None,
            actual_size_bytes=GIB // 4 if ready else None,
        )


def _with_disks(pool: PoolReport, disks: Iterable[DiskReport]) -> PoolReport:
    """Return the pool with what is promised of it."""
    committed = sum(disk.capacity_bytes for disk in disks if disk.pool == pool.name)
    return pool.model_copy(update={"committed_bytes": pool.committed_bytes + committed})


class QuickJournal(Journal):
    """A journal with a shorter heartbeat, so that tests of silence are short."""

    heartbeat_seconds = HEARTBEAT_SECONDS

    def watch(self, cursor: str | None, heartbeat_seconds: float | None = None) -> AsyncIterator[WatchEvent]:
        """Watch with the journal's own heartbeat."""
        return super().watch(cursor, heartbeat_seconds or self.heartbeat_seconds)


class SimulatedNode:
    """A node that listens; it can be stopped, and started again as a new process on the same port."""

    def __init__(
        self,
        name: str,
        context: Callable[[], ssl.SSLContext],
        folder: Path,
        port: int = 0,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.name = name
        self.port = port
        self.heartbeat_seconds = heartbeat_seconds
        self._context = context
        self._guard_path = folder / f"{name}-epoch"
        self._server: Server | None = None
        self._journal = self._build_journal()
        self.daemon = SimulatedDaemon(name, self._journal)

    def _build_journal(self) -> Journal:
        known = getattr(self, "daemon", None)
        journal = QuickJournal(known.node_report() if known else build_node_report(self.name))
        journal.heartbeat_seconds = self.heartbeat_seconds
        return journal

    @property
    def address(self) -> str:
        """Return host:port."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen; a new process that knows its machines but none of the cursors given before."""
        self._journal = self.daemon.journal = self._build_journal()
        for report in self.daemon.reports.values():
            self._journal.publish_machine(report)
        for image in self.daemon.images.values():
            self._journal.publish_image(image)
        for snapshot in self.daemon.snapshots.reports.values():
            self._journal.publish_snapshot(snapshot)
        await self.resume()

    async def resume(self) -> None:
        """Listen again as the same process, as after a break of the network."""
        guard, metrics = EpochGuard(self._guard_path), ApiMetrics(CollectorRegistry())
        server_module._SHUTDOWN_SECONDS = 0.01  # type: ignore[misc]  # a simulated node is killed, not asked
        self._server = Server(self.daemon, self._journal, guard, metrics)
        self.port = await self._server.start("127.0.0.1", self.port, self._context())

    async def stop(self) -> None:
        """Listen no more and end the streams, as abruptly as a kill."""
        if self._server:
            await self._server.stop()
            self._server = None


@asynccontextmanager
async def running(node: SimulatedNode) -> AsyncIterator[SimulatedNode]:
    """Run a node for as long as the context lasts."""
    await node.start()
    try:
        yield node
    finally:
        await node.stop()
