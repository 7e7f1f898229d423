"""Look at the layers of a machine's disks: what is to be removed or merged next."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.errors import PoolFullError, UnavailableError
from virtfleet_node.core.observed import DomainState, Folding, ObservedDomain
from virtfleet_node.core.plan_merge import (
    AddLayer,
    MergeFiles,
    MergeLive,
    RemoveLayer,
    Step,
    bytes_needed,
    machines_above,
    next_step,
)
from virtfleet_node.core.stored import StoredDisk

_LOG = logging.getLogger(__name__)


async def look_at_layers(
    around: Surroundings, uid: str, domain: ObservedDomain, disks: Iterable[StoredDisk]
) -> Folding | None:
    """Return what is to be done next about the layers of a machine, and what it waits for; None for nothing."""
    merges = around.disks.merges
    if not await asyncio.to_thread(merges.concerns, uid, disks):
        return None
    if kept := await asyncio.to_thread(merges.begun, uid):
        return Folding(kept[0].pool, kept[0].disk)
    step = await find_step(around, uid, domain)
    if step is None:
        return None
    pool, disk = disk_of(step)
    try:
        await asyncio.to_thread(merges.check_room, pool, bytes_needed(step))
    except PoolFullError as error:
        return Folding(pool, disk, waits=str(error))
    return Folding(pool, disk)


async def find_step(around: Surroundings, uid: str, domain: ObservedDomain) -> Step | None:
    """Return the next step for the layers of a machine, given its domain."""
    found = await asyncio.to_thread(around.disks.merges.look)
    own = {uid: _files(domain)} if domain.active else {}
    if found is None or next_step(uid, replace(found, guests=own)) is None:
        return None  # other guests that run would leave no more to do
    others = {
        other: await around.hypervisor.read(other)
        for other in sorted(machines_above(uid, found.layers) | found.owners_below(uid))
    }
    guests = own | {other: _files(seen) for other, seen in others.items() if seen.active}
    known = frozenset(other for other, seen in others.items() if seen.state is not DomainState.ABSENT)
    return next_step(uid, replace(found, guests=guests), known)


async def recover_merges(around: Surroundings, uid: str, *, running: bool) -> None:
    """Bring to an end the merges of a machine's layers that QEMU has begun and no longer works on."""
    for kept in await asyncio.to_thread(around.disks.merges.begun, uid):
        _LOG.info("Ending a merge of layers", extra={"uid": uid, "disk": kept.disk, "running": running})
        await around.disks.merges.recover(uid, kept, running=running)


@asynccontextmanager
async def layers_free(around: Surroundings, uid: str) -> AsyncIterator[None]:
    """Have nobody merge layers of a machine that is off, and each of its disks lie on what holds all of its content.

    What the disks lie on stays so meanwhile, and is to be read then.
    """
    async with around.layer_use.using(await asyncio.to_thread(around.disks.read_disks, uid)):
        await recover_merges(around, uid, running=False)
        yield


@asynccontextmanager
async def snapshot_free(around: Surroundings, snapshot_uid: str) -> AsyncIterator[None]:
    """Have nobody merge layers of a snapshot's disks while others are made above them, or they are copied.

    Raises:
        UnavailableError: its machine has begun to, and has yet to find out how that ended.
    """
    owner, disks = await asyncio.to_thread(around.disks.restores.captured_disks, snapshot_uid)
    async with around.layer_use.using(disks):
        begun = await asyncio.to_thread(around.disks.merges.begun, owner) if owner else ()
        if begun:
            raise UnavailableError("Layers of the snapshot's disks are being merged.")
        yield


def disk_of(step: Step) -> tuple[str, str]:
    """Return pool and name of the disk that a step is about."""
    match step:
        case RemoveLayer(layer) | AddLayer(_, layer) | MergeFiles(_, layer) | MergeLive(_, _, layer, _):
            return layer.pool, layer.disk


def _files(domain: ObservedDomain) -> dict[Path, str]:
    return {Path(disk.file): disk.target for disk in domain.disks if disk.file and not disk.drive and not disk.volume}
