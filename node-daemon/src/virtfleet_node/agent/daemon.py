"""The daemon behind the server: takes documents, keeps them, and has them reconciled."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from virtfleet_api.image import Image, ImageReport
from virtfleet_api.machine import Hardware, Machine, Run
from virtfleet_api.node_api import InterfaceList, PoolList
from virtfleet_api.node_network import NodeNetwork
from virtfleet_api.pool import PoolSet
from virtfleet_api.report import MachineReport, NetworkReport, NodeReport, Phase, PoolReport
from virtfleet_api.snapshot import MachineSnapshot, SnapshotReport
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.agent.copier import Copier
from virtfleet_node.agent.cpu_watch import CpuWatch
from virtfleet_node.agent.disk_io_watch import DiskIoWatch
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.flattener import Flattener
from virtfleet_node.agent.forwards import Forwards
from virtfleet_node.agent.freezer import Freezer
from virtfleet_node.agent.give_devices import hold_devices
from virtfleet_node.agent.guests import Guests
from virtfleet_node.agent.merger import Merger
from virtfleet_node.agent.numa_watch import NumaWatch
from virtfleet_node.agent.observe import forget_vcpus, observe, observe_around
from virtfleet_node.agent.performers import Performers
from virtfleet_node.agent.queue import KeyedQueue, QueueObserver
from virtfleet_node.agent.reach import check_reachable, read_log
from virtfleet_node.agent.reconcile import Reconciler, keep_new
from virtfleet_node.agent.snapshots import Snapshots
from virtfleet_node.agent.storage_watch import StorageWatch
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.agent.sweep import sweep
from virtfleet_node.agent.traffic_watch import TrafficWatch
from virtfleet_node.agent.wiper import Wiper
from virtfleet_node.agent.works import Works
from virtfleet_node.core.errors import ConflictError, NodeError, NotFoundError
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import DomainState, ObservedDomain
from virtfleet_node.core.ports import ConsoleStream, DisplayStream
from virtfleet_node.core.record import with_desired

_LOG = logging.getLogger(__name__)

_WORKERS: Final = 8
"""Machines reconciled at once: libvirt starts about that many side by side before starts get slower."""

RESYNC_SECONDS: Final = 300.0
"""Every machine is looked at this often even if no event told of it."""


class NodeDaemon:
    """Everything a node does for its machines."""

    def __init__(
        self, around: Surroundings, describe: Callable[[], NodeReport], observer: QueueObserver | None = None
    ) -> None:
        self._around = around
        self._describe = describe
        self._entries: dict[str, Entry] = {}
        self._queue = KeyedQueue(self._work, _WORKERS, observer)
        self.storage = StorageWatch(around, self._entries.values, describe)
        self.traffic = TrafficWatch(around, self._entries)
        self.disk_io = DiskIoWatch(around, self._entries)
        self.numa = NumaWatch(around, self._entries, self._queue.add)
        self.forwards = Forwards(around.local_ports, self._entries)
        around.cells.subscribe(self._look_at_all)
        self.cpu = CpuWatch(around, self._entries)
        self._freezer = Freezer(around, self._entries)
        self._guests = Guests(self._freezer.read_facts, self._take_facts)
        self._copier = Copier(around, self._entries, self._freezer, self._queue.add)
        around.images.copy_disks_with(self._copier.export)
        wake = self._queue.add
        self._snapshots = Snapshots(around, self._entries, self._freezer, wake)
        merger = Merger(around, self._entries, wake)
        performers = Performers(self._copier, Flattener(around, wake), merger, Wiper(around, wake))
        self._works = Works(self._entries, performers.perform, performers.describe, self._queue.add)
        self._reconciler = Reconciler(around, self._works, self._guests.watch)
        self._taking_up = asyncio.Lock()
        """Held while it is decided whether a machine is new."""
        self._pools: tuple[PoolReport, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Look at all that is there, publish it, and begin to work."""
        self._around.images.subscribe(self._image_changed)
        await self._around.devices.start(self._devices_told)
        await self._around.switch.start()
        self._around.switch.subscribe(self._network_changed)
        await self._around.images.start()
        for report in self._around.images.reports():
            self._around.journal.publish_image(report)
        for uid, domain in (await self._around.hypervisor.read_all()).items():
            await self._load(uid, domain)
        await self._copier.recover()
        self._queue.start()
        await self._snapshots.start()
        self._look_at_all()
        watched = (self.storage, self.traffic, self.disk_io, self.cpu, self.numa, self.forwards, self._freezer)
        background = (
            self._resync(),
            self._snapshots.run(),
            *(watch.run() for watch in watched),
            self._around.switch.run(),
            self._around.devices.run(),
        )
        self._tasks += [asyncio.create_task(work) for work in background]

    async def stop(self) -> None:
        """End all work; guests run on."""
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._queue.stop()
        await self._works.stop()
        await self._snapshots.stop()
        await self._guests.stop()
        await self._around.images.stop()

    async def put_machine(self, machine: Machine) -> MachineReport:
        """Keep what is wanted of a machine; durable when this returns. ConflictError for another machine's UID."""
        entry = self._entries.get(machine.uid)
        if entry is None:
            async with self._taking_up:
                entry = self._entries.get(machine.uid)
                if entry is None:
                    return await (self._sweep(machine) if machine.run is Run.ABSENT else self._create(machine))
        return await self._update(entry, machine)

    def list_machines(self) -> tuple[MachineReport, ...]:
        """Return a report of each machine; may be called by any thread."""
        return tuple(entry.report for entry in tuple(self._entries.values()) if entry.report is not None)

    def get_machine(self, uid: str) -> MachineReport:
        """Return the report of a machine; NotFoundError."""
        return self._entry(uid).reported

    async def delete_machine(self, uid: str) -> MachineReport:
        """Have a machine removed by the document that is kept; NotFoundError."""
        entry = self._entry(uid)
        return await self._update(entry, entry.desired.model_copy(update={"run": Run.ABSENT}))

    async def put_image(self, image: Image) -> ImageReport:
        """Take over what is wanted of an image; ConflictError when it shall go and a machine here still names it."""
        if not image.present:
            self._check_unused(image)
        return await self._around.images.put(image)

    def list_images(self) -> tuple[ImageReport, ...]:
        """Return a report of each image."""
        return self._around.images.reports()

    async def put_snapshot(self, wanted: MachineSnapshot) -> SnapshotReport:
        """Have a machine captured, which is durable when this returns, or remove what was captured."""
        return await self._snapshots.put(wanted)

    def list_snapshots(self) -> tuple[SnapshotReport, ...]:
        """Return a report of each snapshot."""
        return self._snapshots.reports()

    async def put_network(self, wanted: NodeNetwork) -> NetworkReport:
        """Have the node's network so; durable when this returns."""
        return await self._around.switch.put(wanted)

    async def put_pools(self, wanted: PoolSet) -> PoolList:
        """Have these pools beside those of the configuration file; durable when this returns."""
        fresh = await asyncio.to_thread(self._around.wanted_pools.put, wanted)
        await self._around.images.take_up()
        self._around.journal.publish_node(self._describe())
        for uid in self._entries if fresh else ():
            self._queue.add(uid)  # it may have waited for the pool
        return PoolList(items=self._around.pools.reports())

    def node_report(self) -> NodeReport:
        """Return the inventory."""
        return self._describe()

    async def list_interfaces(self, uid: str) -> InterfaceList:
        """Return the network cards of a machine with their traffic; NotFoundError."""
        self._entry(uid)
        return await self.traffic.list_interfaces(uid)

    async def open_console(self, uid: str) -> ConsoleStream:
        """Open the serial console of a running guest; ConflictError when it does not run."""
        check_reachable(self.get_machine(uid), "console")
        return await self._around.hypervisor.open_console(uid)

    async def open_display(self, uid: str) -> DisplayStream:
        """Open the display of a running guest; ConflictError when it does not run, or has none."""
        check_reachable(self.get_machine(uid), "display")
        return await self._around.hypervisor.open_display(uid)

    async def read_console_log(self, uid: str, max_bytes: int) -> bytes:
        """Return the end of what the guest wrote to its console."""
        self._entry(uid)
        return await read_log(self._around, uid, max_bytes)

    def machine_changed(self, uid: str) -> None:
        """Look at a machine that something happened to."""
        if uid in self._entries:
            self._queue.add(uid)

    def agent_connected(self, uid: str) -> None:
        """Ask a guest agent that has just come up."""
        if uid in self._entries:
            forget_vcpus(self._entries[uid])
            self._guests.restart(uid)
            self._begin(self._freezer.thaw(uid))

    def devices_changed(self) -> None:
        """Look at the host's devices."""
        self._around.devices.changed()

    def connected(self) -> None:
        """Look at everything: events may have been missed."""
        self._around.devices.changed()
        self._around.journal.publish_node(self._describe())
        self._begin(self._copier.recover())
        self._begin(self._take_up())
        self._look_at_all()

    def enrolled(self) -> None:
        """Look at the network: ovn-controller may have got its certificate."""
        self._begin(self._around.switch.look())

    def disconnected(self) -> None:
        """Tell that nothing is known for now."""
        self._around.journal.publish_node(self._describe())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the queue; what fails is done when the next event comes."""
        task = asyncio.create_task(_forgive(work))
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    def _entry(self, uid: str) -> Entry:
        try:
            return self._entries[uid]
        except KeyError:
            raise NotFoundError(f"This node has no machine {uid}.") from None

    async def _load(self, uid: str, domain: ObservedDomain) -> None:
        if domain.stored is None:
            _LOG.warning("Leaving a domain alone that holds no document of ours", extra={"uid": uid})
            return
        entry = Entry(domain.stored.desired)
        self._entries[uid] = entry
        hold_devices(self._around, entry.desired, domain)
        self._reconciler.publish(entry, await observe_around(self._around, entry, domain))

    async def _take_up(self) -> None:
        """Take up the machines that libvirt has and the daemon does not know.

        There are none, unless a libvirtd was killed at an awkward moment and has a domain again that was removed.
        """
        async with self._taking_up:
            for uid in await self._around.hypervisor.list_uids() - self._entries.keys():
                domain = await self._around.hypervisor.read(uid)
                if domain.state is not DomainState.ABSENT:
                    await self._load(uid, domain)
                    self.machine_changed(uid)

    async def _create(self, machine: Machine) -> MachineReport:
        if machine.cloud_init is not None:
            await self._around.media.write_cloud_init(machine.uid, machine.cloud_init)
        domain = await self._around.hypervisor.read(machine.uid)
        await keep_new(self._around, machine, domain)
        entry = self._entries[machine.uid] = Entry(machine.without_secrets())
        report = await self._report(entry)
        self._queue.add(machine.uid)
        return report

    async def _update(self, entry: Entry, machine: Machine) -> MachineReport:
        entry.check_same(machine)
        desired = machine.without_secrets()
        if machine.cloud_init is not None and self._lacks_medium(machine):
            await self._around.media.write_cloud_init(machine.uid, machine.cloud_init)
            self._queue.add(machine.uid)
        if desired == entry.desired and entry.report is not None:
            return entry.report
        async with entry.lock:
            stored = (await self._around.hypervisor.read(machine.uid)).stored
            if stored is not None:
                await self._around.hypervisor.write_stored(with_desired(stored, desired))
            if desired.run is Run.ABSENT:  # before anybody who is at work on the machine takes it away
                await asyncio.to_thread(self._copier.look_for_copies, machine.uid, entry)
            entry.desired = desired
        self._queue.add(machine.uid)
        self._wake_removals()
        return await self._report(entry)

    def _lacks_medium(self, machine: Machine) -> bool:
        digest = machine.hardware.cloud_init_digest
        return digest is not None and self._around.media.path(machine.uid, digest) is None

    async def _sweep(self, machine: Machine) -> MachineReport:
        """Remove what is left of a machine that libvirt does not know, and say what was kept."""
        # What takes longer than an answer must be known after a crash.
        return await sweep(self._around, machine) or await self._create(machine)

    async def _report(self, entry: Entry) -> MachineReport:
        observed = await observe(self._around, entry.desired.uid, entry)
        return self._reconciler.publish(entry, observed)

    async def _work(self, uid: str) -> None:
        entry = self._entries.get(uid)
        if entry is None:
            return
        if entry.desired.run is Run.ABSENT:
            await asyncio.to_thread(self._copier.look_for_copies, uid, entry)
        wake_at = await self._reconciler.reconcile(uid, entry)
        self._tell_pools()
        if entry.report is not None and entry.report.phase is Phase.ABSENT:
            self._forget(uid)
        elif wake_at is not None:
            self._queue.add_after(uid, (wake_at - self._around.now()).total_seconds())
        else:
            self._queue.forget_timer(uid)

    def _tell_pools(self) -> None:
        """Tell of disks that were made or removed before others are placed by an old figure."""
        pools = self._around.pools.reports()
        if pools != self._pools:
            self._pools = pools
            self._around.journal.publish_node(self._describe())

    def _forget(self, uid: str) -> None:
        self._entries.pop(uid, None)
        self._around.cells.forget(uid)
        self._queue.forget_timer(uid)
        self._guests.watch(uid, connected=False)
        self._wake_removals()

    def _wake_removals(self) -> None:
        """Look at the machines that wait for copies before they go: perhaps nobody wants those any more."""
        for uid, entry in self._entries.items():
            if entry.wanted_by:
                self._queue.add(uid)

    def _take_facts(self, uid: str, facts: GuestFacts) -> None:
        entry = self._entries.get(uid)
        if entry is not None and entry.facts != facts:
            entry.facts = facts
            self._queue.add(uid)

    def _check_unused(self, image: Image) -> None:
        kept = (entry.desired for entry in self._entries.values() if entry.desired.run is not Run.ABSENT)
        if users := sorted(machine.uid for machine in kept if image.uid in machine.image_uids()):
            raise ConflictError(f"These machines of the node are made from the image: {', '.join(users)}.")

    def _image_changed(self, uid: str) -> None:
        """Publish the image, and look at the machines that wait for it."""
        report = next((r for r in self._around.images.reports() if r.uid == uid), None)
        if report is None:
            self._around.journal.remove_image(uid)
        else:
            self._around.journal.publish_image(report)
        if report is None or report.phase is not ImagePhase.IMPORTING:
            self._wake_removals()
        for machine_uid, entry in self._entries.items():
            if uid in entry.desired.image_uids():
                self._queue.add(machine_uid)

    def _network_changed(self) -> None:
        """Tell of it, and look at the machines that may have waited for a switch."""
        self._tell_and_wake(lambda hardware: any(interface.port for interface in hardware.interfaces))

    def _devices_told(self) -> None:
        """Tell of it, and look at the machines that may have waited for a device."""
        self._tell_and_wake(lambda hardware: bool(hardware.devices))

    def _tell_and_wake(self, concerns: Callable[[Hardware], bool]) -> None:
        self._around.journal.publish_node(self._describe())
        for uid, entry in self._entries.items():
            if concerns(entry.desired.hardware):
                self._queue.add(uid)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            self._look_at_all()

    def _look_at_all(self) -> None:
        for uid in self._entries:
            self._queue.add(uid)


async def _forgive(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(NodeError):
        await work
