"""Carry out the actions of a plan. Which ones, the plan decides; here is only how."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from virtfleet_api.machine import ImageDiskSource, Machine, MachineDisk, MachineInterface, SnapshotDiskSource
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.give_devices import attach_device, choose_devices
from virtfleet_node.agent.look_at_layers import layers_free, recover_merges, snapshot_free
from virtfleet_node.agent.observe import count_resume, count_shutdown, remember_asking, remember_vcpus
from virtfleet_node.agent.resolve import resolve_disk, resolve_media, resolve_paths, resolve_volumes
from virtfleet_node.agent.restorer import carry_out_restore
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.actions import (
    AttachCard,
    AttachDevice,
    AttachDisk,
    ChangeMedium,
    DetachCard,
    DetachDevice,
    DetachDisk,
    DiskAction,
    DomainAction,
    GrowDisk,
    PrepareDisk,
    PrepareVolume,
    RemoveDisk,
    RemoveMedia,
    RequestShutdown,
    Resume,
    ShortAction,
    Start,
    WriteRecord,
)
from virtfleet_node.core.compute_actions import (
    DetachDimm,
    PlugVcpus,
    RequestMemory,
    SetBalloon,
    SetGuestVcpus,
    UnplugVcpus,
    VcpuAction,
)
from virtfleet_node.core.desired.disks import build_disk_xml
from virtfleet_node.core.desired.domain import build_domain_xml
from virtfleet_node.core.desired.guest import Guest, ResolvedDisk, ResolvedPaths
from virtfleet_node.core.desired.interfaces import build_interface_xml
from virtfleet_node.core.due import balloon_key, memory_key, plug_key, unplug_key, vcpus_key
from virtfleet_node.core.errors import ConflictError, NodeError, UnavailableError
from virtfleet_node.core.numa.choose import Refused
from virtfleet_node.core.numa.host import build_wish
from virtfleet_node.core.numa.pin import Pin
from virtfleet_node.core.numa.pins import build_guest_cells, is_everywhere
from virtfleet_node.core.places import Places, assign, reassign
from virtfleet_node.core.record import Life, Record, Stored
from virtfleet_node.core.restore_actions import (
    BeginRestore,
    DropLayers,
    MakeLayers,
    SetClock,
    SetMachineId,
    StartWarm,
    TidyLayers,
)
from virtfleet_node.core.settle import failed_start
from virtfleet_node.host.pages import move_pages

_LOG = logging.getLogger(__name__)

_VCPU_KEYS: Final = {PlugVcpus: plug_key, UnplugVcpus: unplug_key, SetGuestVcpus: vcpus_key}


async def carry_out(around: Surroundings, entry: Entry, desired: Machine, action: ShortAction) -> None:
    """Carry out one action that was planned for `desired`."""
    match action:
        case WriteRecord(record):
            await write_record(around, entry, record)
        case Start():
            await _start(around, entry, desired, action)
        case PrepareDisk() | PrepareVolume() | GrowDisk() | AttachDisk() | ChangeMedium() | RemoveDisk():
            await _carry_out_disk(around, entry, desired, action)
        case Pin():
            await _pin(around, desired, action)
        case AttachCard() | AttachDevice():
            await _attach(around, entry, desired, action)
        case BeginRestore() | MakeLayers() | DropLayers() | StartWarm() | TidyLayers() | SetClock() | SetMachineId():
            await carry_out_restore(around, entry, desired, action)
        case RemoveMedia():
            await recover_merges(around, desired.uid, running=False)  # for those that lie on layers which stay
            await asyncio.to_thread(around.disks.remove_leftovers, desired.uid)
            await asyncio.to_thread(around.media.remove, desired.uid)
        case _:
            await _carry_out_domain(around, entry, desired, action)


async def _pin(around: Surroundings, desired: Machine, action: Pin) -> None:
    """Pin the threads, then move the memory: most of it without libvirt, which holds a lock while it does so."""
    await around.hypervisor.pin(desired.uid, replace(action, nodes=None))
    pid = await around.hypervisor.read_pid(desired.uid) if action.nodes else None
    if pid is not None and action.nodes is not None:
        others = frozenset(around.cells.host.by_number) - action.nodes
        await asyncio.to_thread(move_pages, pid, others, action.nodes)
    await around.hypervisor.pin(desired.uid, Pin(nodes=action.nodes))


async def _carry_out_domain(around: Surroundings, entry: Entry, desired: Machine, action: DomainAction) -> None:
    if isinstance(action, RequestShutdown):
        count_shutdown(around, entry)
    elif isinstance(action, Resume):
        count_resume(around, entry)
    elif key := _asks_for(action):
        remember_asking(around, entry, key)
    await around.hypervisor.execute(desired.uid, action)
    if isinstance(action, VcpuAction) and entry.report and entry.report.agent_connected:
        await remember_vcpus(around, entry)


def _asks_for(action: DomainAction) -> str:
    """Return what the guest is asked for, as `Observed.asked` names it; empty when it is not asked."""
    match action:
        case DetachDisk(target=key) | DetachCard(alias=key) | DetachDimm(alias=key) | DetachDevice(alias=key):
            return key
        case PlugVcpus(count) | UnplugVcpus(count) | SetGuestVcpus(count):
            return _VCPU_KEYS[type(action)](count)
        case RequestMemory(size_bytes):
            return memory_key(size_bytes)
        case SetBalloon(level_bytes):
            return balloon_key(level_bytes)
    return ""


async def _attach(around: Surroundings, entry: Entry, desired: Machine, action: AttachCard | AttachDevice) -> None:
    if isinstance(action, AttachDevice):
        await attach_device(around, entry, desired, action.device)
    else:
        xml = await _card_xml(around, entry, desired, action.interface)
        await around.hypervisor.attach_device(desired.uid, xml)


async def _carry_out_disk(around: Surroundings, entry: Entry, desired: Machine, action: DiskAction) -> None:
    match action:
        case PrepareDisk(disk):
            await _prepare_disk(around, desired, disk)
        case PrepareVolume(_, source, size_bytes):
            await asyncio.to_thread(around.volumes.make, source, size_bytes)
        case GrowDisk(disk):
            async with entry.lock:
                await entry.end_readers()
                there = await asyncio.to_thread(around.disks.read_disks, desired.uid)
                async with around.layer_use.using(there):
                    await around.disks.grow_disk(desired.uid, disk)
        case AttachDisk(disk):
            async with around.layer_use.using(await asyncio.to_thread(around.disks.read_disks, desired.uid)):
                await around.hypervisor.attach_device(desired.uid, await _disk_xml(around, entry, desired, disk))
        case ChangeMedium(target, drive):
            remember_asking(around, entry, target)
            await around.hypervisor.change_medium(desired.uid, await _disk_xml(around, entry, desired, drive))
        case RemoveDisk(pool, name):
            await asyncio.to_thread(around.disks.remove_disk, desired.uid, pool, name)


async def _prepare_disk(around: Surroundings, desired: Machine, disk: MachineDisk) -> None:
    if isinstance(disk.source, SnapshotDiskSource):
        async with snapshot_free(around, disk.source.snapshot_uid):
            await around.disks.prepare_disk(desired.uid, disk, None)
        return
    image = around.images.files(disk.source.image_uid) if isinstance(disk.source, ImageDiskSource) else None
    await around.disks.prepare_disk(desired.uid, disk, image)


async def write_record(around: Surroundings, entry: Entry, record: Record) -> None:
    """Keep a record. The list of detached disks belongs to documents, not to plans, and stays as it is."""
    async with entry.lock:
        stored = (await around.hypervisor.read(entry.desired.uid)).stored
        if stored is not None:
            await around.hypervisor.write_stored(_with_record(stored, record))


async def _disk_xml(around: Surroundings, entry: Entry, desired: Machine, disk: MachineDisk) -> str:
    """Return the <disk> of one disk or drive of a running guest, at its place."""
    stored = (await around.hypervisor.read(desired.uid)).stored
    there = () if disk.is_volume else await asyncio.to_thread(around.disks.read_disks, desired.uid)
    find = around.images.files
    paths = ResolvedPaths(
        console_log=around.console_log(desired.uid),
        disks={
            **{s.name: resolve_disk(s, find) for s in there if (s.pool, s.name) == (disk.pool, disk.name)},
            **await asyncio.to_thread(resolve_volumes, (disk,), around.volumes.look),
        },
        media=resolve_media((disk,), find),
    )
    places = assign(stored.places if stored else Places(), entry.desired.hardware)
    return build_disk_xml(Guest(desired, around.facts, paths, places), disk)


async def _card_xml(around: Surroundings, entry: Entry, desired: Machine, interface: MachineInterface) -> str:
    """Return the <interface> of one card of a running guest, at its place."""
    stored = (await around.hypervisor.read(desired.uid)).stored
    places = assign(stored.places if stored else Places(), entry.desired.hardware)
    paths = ResolvedPaths(console_log=around.console_log(desired.uid))
    return build_interface_xml(Guest(desired, around.facts, paths, places, around.switch.user_space), interface)


async def _start(around: Surroundings, entry: Entry, desired: Machine, action: Start) -> None:
    """Start the machine, unless its document has changed since the plan was made; then there is a new plan."""
    async with entry.lock:
        stored = (await around.hypervisor.read(desired.uid)).stored
        if stored is None or stored.desired != desired:
            return
        await entry.end_readers()
        await around.cells.look()
        placement = around.cells.reserve(desired.uid, desired.hardware)
        if isinstance(placement, Refused):
            return  # another machine came first
        try:
            volumes = await asyncio.to_thread(resolve_volumes, desired.hardware.volumes, around.volumes.look)
        except ConflictError:
            around.cells.release(desired.uid)
            return  # one has gone meanwhile
        devices = choose_devices(around, desired, stored)
        if devices is None:
            around.cells.release(desired.uid)
            return
        places = reassign(stored.places, desired.hardware)
        given = {"places": places, "devices": devices, "placement": placement}
        starting = _with_record(stored, action.record).model_copy(update={"started": desired.hardware, **given})
        try:
            async with layers_free(around, desired.uid):
                await _start_now(around, desired, starting, volumes, paused=action.paused)
        except UnavailableError:
            raise  # nothing is known of the start; the next look tells
        except NodeError as error:
            _LOG.warning("Starting failed", extra={"uid": desired.uid, "reason": str(error)})
            await around.hypervisor.write_stored(_with_record(stored, _failed(around, stored, action, error)))
        finally:
            around.cells.release(desired.uid)


async def _start_now(
    around: Surroundings, desired: Machine, starting: Stored, volumes: Mapping[str, ResolvedDisk], *, paused: bool
) -> None:
    digest = desired.hardware.cloud_init_digest
    medium = around.media.path(desired.uid, digest) if digest else None
    disks = await asyncio.to_thread(around.disks.read_disks, desired.uid)
    log = around.console_log(desired.uid)
    await asyncio.to_thread(log.parent.mkdir, mode=0o711, parents=True, exist_ok=True)
    paths = resolve_paths(desired, disks, volumes, around.images.files, medium, log)
    confirmed = _with_record(starting, starting.record.model_copy(update={"life": Life.RUNNING}))
    pinning = around.cells.pinning(desired.uid)
    guest = Guest(
        desired,
        around.facts,
        paths,
        starting.places,
        around.switch.user_space,
        starting.devices,
        pinning=None if pinning is None or is_everywhere(pinning) else pinning,
        cells=build_guest_cells(build_wish(desired.hardware), starting.placement),
    )
    xml = build_domain_xml(guest, starting)
    await around.devices.prepare(starting.devices)
    await around.hypervisor.start_machine(xml, confirmed, paused=paused)


def _failed(around: Surroundings, stored: Stored, action: Start, error: NodeError) -> Record:
    """Return the record after a failed start: the start token counts as served, since it was tried."""
    tried = action.record.model_copy(update={"started_at": stored.record.started_at})
    return failed_start(tried, str(error), around.now())


def _with_record(stored: Stored, record: Record) -> Stored:
    kept = record.model_copy(update={"detached": stored.record.detached})
    return stored.model_copy(update={"record": kept})
