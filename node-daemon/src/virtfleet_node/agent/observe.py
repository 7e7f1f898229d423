"""Look at a machine: its domain, its disks, the images and the medium it needs."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from virtfleet_api.machine import Machine, Run, VolumeSource
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.look_at_layers import look_at_layers
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.actions import FlattenDisk, MergeLayers
from virtfleet_node.core.attached import attached_volume
from virtfleet_node.core.cards import card_name
from virtfleet_node.core.desired.cpu_tune import live_scheduling, running_vcpus
from virtfleet_node.core.due import asked_again, outstanding
from virtfleet_node.core.errors import NodeError
from virtfleet_node.core.full_pool import Resumes, remembered
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.layers import as_attached
from virtfleet_node.core.numa.choose import Refused
from virtfleet_node.core.observed import DomainState, Folding, Observed, ObservedDomain, ShutdownRequests
from virtfleet_node.core.plan_restore import restore_pending
from virtfleet_node.core.pool_rules import PoolSpace
from virtfleet_node.core.record import Record
from virtfleet_node.core.snapshot_view import SnapshotView
from virtfleet_node.core.stored import StoredDisk
from virtfleet_node.core.volumes import SeenVolume


async def observe(around: Surroundings, uid: str, entry: Entry) -> Observed:
    """Return what is. Updates what the entry remembers of pauses and shutdown requests."""
    domain = await around.hypervisor.read(uid)
    return await observe_around(around, entry, domain)


async def observe_around(around: Surroundings, entry: Entry, domain: ObservedDomain) -> Observed:
    """Return what is, given the domain."""
    _remember(around, entry, domain)
    desired = entry.desired
    digest = desired.hardware.cloud_init_digest
    disks = as_attached(await asyncio.to_thread(around.disks.read_disks, desired.uid), domain.disks)
    needed = desired.image_uids() | {disk.backing_image_uid for disk in disks if disk.backing_image_uid}
    offered = None if domain.active else around.cells.offer(desired.uid, desired.hardware)
    observed = Observed(
        domain=domain,
        disks=disks,
        ready_images=frozenset(uid for uid in needed if around.images.files(uid) is not None),
        volumes=await asyncio.to_thread(_volumes, around, desired, domain) if desired.hardware.volumes else {},
        media_digest=digest if digest and around.media.path(desired.uid, digest) is not None else None,
        shutdown=entry.shutdown,
        cpu_frequency_hz=around.facts.cpu.frequency_hz,
        asked=dict(entry.asked),
        host=around.devices.view(desired.uid),
        guest_vcpus=entry.facts.vcpus,
        paused_at=entry.paused_at,
        full_pools=await _full_pools(around, domain, disks),
        resumes=entry.resumes,
        work=str(entry.work or ""),
        flattening=_flattening(entry),
        folding=await _folding(around, entry, domain, disks),
        merging=str(entry.work) if _merges(entry) else "",
        is_captured=entry.capturing,
        is_copied=entry.is_copied,
        snapshot=await asyncio.to_thread(_snapshot, around, entry, domain),
        disks_in_use=entry.copying.locked(),
        wanted_by=entry.wanted_by,
        network_problem=around.switch.problem,
        placement=around.cells.placement(desired.uid),
        pinning=around.cells.pinning(desired.uid),
        no_place=offered if isinstance(offered, Refused) else None,
    )
    entry.scheduling = live_scheduling(desired, domain.stored) if domain.active else None
    entry.vcpus = running_vcpus(desired, observed)
    return observed


async def _full_pools(
    around: Surroundings, domain: ObservedDomain, disks: Sequence[StoredDisk]
) -> tuple[PoolSpace, ...]:
    """Return the pools of the disks that QEMU could not write, with the space that they have now."""
    files = {attached.file for attached in domain.disks if attached.target in domain.full_disks}
    names = sorted({disk.pool for disk in disks if str(disk.path) in files})
    return tuple([await asyncio.to_thread(_space, around, name) for name in names])


def _snapshot(around: Surroundings, entry: Entry, domain: ObservedDomain) -> SnapshotView | None:
    """Return the snapshot that the machine is restored to; None when there is none, or nothing is to be restored."""
    desired, record = entry.desired, domain.stored.record if domain.stored else Record()
    restoring = record.restoring if desired.run is not Run.ABSENT else None
    if restoring is not None or not entry.copying.locked():  # what was read may be older than what has just begun
        around.disks.restores.hold(desired.uid, restoring)
    if restoring is not None:
        return around.disks.restores.view(desired.uid, restoring.snapshot_uid)
    if desired.restore is not None and restore_pending(desired, record):
        return around.disks.restores.view(desired.uid, desired.restore.snapshot_uid)
    return None


def _volumes(around: Surroundings, desired: Machine, domain: ObservedDomain) -> dict[str, SeenVolume]:
    """Look for the volumes that are needed: a guest's own are left alone, wherever else they are by now."""
    if desired.run not in {Run.RUNNING, Run.PAUSED}:
        return {}
    found = ((disk.name, disk.source) for disk in desired.hardware.volumes)
    return {
        name: around.volumes.look(source)
        for name, source in found
        if isinstance(source, VolumeSource) and attached_volume(name, source, domain.disks) is None
    }


def _space(around: Surroundings, pool: str) -> PoolSpace:
    try:
        return around.pools.space(pool)
    except NodeError:
        return PoolSpace(pool)  # it cannot be read, so it has no room


def _flattening(entry: Entry) -> tuple[str, str, str] | None:
    action = entry.work.action if entry.work else None
    return (action.pool, action.name, str(entry.work)) if isinstance(action, FlattenDisk) else None


def _merges(entry: Entry) -> bool:
    return entry.work is not None and isinstance(entry.work.action, MergeLayers)


async def _folding(
    around: Surroundings, entry: Entry, domain: ObservedDomain, disks: Sequence[StoredDisk]
) -> Folding | None:
    """Look at the layers of a machine; what goes on has taken room already, and is not judged by what it needs."""
    found = await look_at_layers(around, entry.desired.uid, domain, disks)
    return replace(found, waits="") if found and _merges(entry) else found


def _remember(around: Surroundings, entry: Entry, domain: ObservedDomain) -> None:
    entry.restoring = domain.stored.record.restoring if domain.stored else None
    around.cells.see(entry.desired.uid, entry.desired.hardware, domain)
    if not domain.active:
        entry.shutdown, entry.facts = ShutdownRequests(), GuestFacts()
    if not domain.agent_connected:
        forget_vcpus(entry)
    entry.asked = outstanding(entry.asked, domain, entry.facts.vcpus)
    entry.cards = {card.device: name for card in domain.cards if (name := card_name(card, domain)) and card.device}
    if domain.state is not DomainState.PAUSED:
        entry.paused_at = None
    elif entry.paused_at is None:
        entry.paused_at = around.now()
        entry.resumes = remembered(entry.resumes, entry.paused_at)


def count_resume(around: Surroundings, entry: Entry) -> None:
    """Remember that the guest has just been let go on."""
    entry.resumes = Resumes(entry.resumes.count + 1, around.now())


def remember_asking(around: Surroundings, entry: Entry, key: str) -> None:
    """Remember that the guest has just been asked for something, as `Observed.asked` names it."""
    entry.asked = asked_again(entry.asked, key, around.now())


def forget_vcpus(entry: Entry) -> None:
    """Forget how many vCPUs the guest uses: its agent is gone or has come up, perhaps in a guest that was rebooted."""
    entry.facts = replace(entry.facts, vcpus=None)


async def remember_vcpus(around: Surroundings, entry: Entry) -> None:
    """Ask the guest how many vCPUs it uses, after that was changed."""
    entry.facts = replace(entry.facts, vcpus=await around.hypervisor.read_guest_vcpus(entry.desired.uid))


def count_shutdown(around: Surroundings, entry: Entry) -> None:
    """Remember that the guest has just been asked to shut down."""
    entry.shutdown = replace(entry.shutdown, count=entry.shutdown.count + 1, last=around.now())
