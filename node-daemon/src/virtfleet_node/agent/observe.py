"""Look at a machine: its domain, its disks, the images and the medium it needs."""

import asyncio
from dataclasses import replace

from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.actions import FlattenDisk
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import DomainState, Observed, ObservedDomain, ShutdownRequests


async def observe(around: Surroundings, uid: str, entry: Entry) -> Observed:
    """Return what is. Updates what the entry remembers of pauses and shutdown requests."""
    domain = await around.hypervisor.read(uid)
    return await observe_around(around, entry, domain)


async def observe_around(around: Surroundings, entry: Entry, domain: ObservedDomain) -> Observed:
    """Return what is, given the domain."""
    _remember(around, entry, domain)
    desired = entry.desired
    digest = desired.hardware.cloud_init_digest
    disks = await asyncio.to_thread(around.disks.read_disks, desired.uid)
    needed = desired.image_uids() | {disk.backing_image_uid for disk in disks if disk.backing_image_uid}
    return Observed(
        domain=domain,
        disks=disks,
        ready_images=frozenset(uid for uid in needed if around.images.files(uid) is not None),
        media_digest=digest if digest and around.media.path(desired.uid, digest) is not None else None,
        shutdown=entry.shutdown,
        paused_at=entry.paused_at,
        work=str(entry.work or ""),
        flattening=_flattening(entry),
        is_copied=entry.is_copied,
        wanted_by=entry.wanted_by,
    )


def _flattening(entry: Entry) -> tuple[str, str, str] | None:
    action = entry.work.action if entry.work else None
    return (action.pool, action.name, str(entry.work)) if isinstance(action, FlattenDisk) else None


def _remember(around: Surroundings, entry: Entry, domain: ObservedDomain) -> None:
    if not domain.active:
        entry.shutdown, entry.facts = ShutdownRequests(), GuestFacts()
    if domain.state is not DomainState.PAUSED:
        entry.paused_at = None
    elif entry.paused_at is None:
        entry.paused_at = around.now()


def count_shutdown(around: Surroundings, entry: Entry) -> None:
    """Remember that the guest has just been asked to shut down."""
    entry.shutdown = replace(entry.shutdown, count=entry.shutdown.count + 1, last=around.now())
