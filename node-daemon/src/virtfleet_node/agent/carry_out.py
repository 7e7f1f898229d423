"""Carry out the actions of a plan. Which ones, the plan decides; here is only how."""

import asyncio
import logging

from virtfleet_api.machine import ImageDiskSource, Machine
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.observe import count_resume, count_shutdown
from virtfleet_node.agent.resolve import resolve_paths
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.actions import (
    Action,
    GrowDisk,
    PrepareDisk,
    RemoveDisk,
    RemoveMedia,
    RequestShutdown,
    Resume,
    Start,
    WriteRecord,
)
from virtfleet_node.core.desired.domain import build_domain_xml
from virtfleet_node.core.desired.guest import Guest
from virtfleet_node.core.errors import NodeError, UnavailableError
from virtfleet_node.core.record import Life, Record, Stored
from virtfleet_node.core.settle import failed_start

_LOG = logging.getLogger(__name__)


async def carry_out(around: Surroundings, entry: Entry, desired: Machine, action: Action) -> None:
    """Carry out one action that was planned for `desired`."""
    match action:
        case WriteRecord(record):
            await write_record(around, entry, record)
        case PrepareDisk(disk):
            image = around.images.files(disk.source.image_uid) if isinstance(disk.source, ImageDiskSource) else None
            await around.disks.prepare_disk(desired.uid, disk, image)
        case GrowDisk(disk):
            await around.disks.grow_disk(desired.uid, disk)
        case Start():
            await _start(around, entry, desired, action)
        case RemoveDisk(pool, name):
            await asyncio.to_thread(around.disks.remove_disk, desired.uid, pool, name)
        case RemoveMedia():
            await asyncio.to_thread(around.disks.remove_partial, desired.uid)
            await asyncio.to_thread(around.media.remove, desired.uid)
        case _:
            if isinstance(action, RequestShutdown):
                count_shutdown(around, entry)
            elif isinstance(action, Resume):
                count_resume(around, entry)
            await around.hypervisor.execute(desired.uid, action)


async def write_record(around: Surroundings, entry: Entry, record: Record) -> None:
    """Keep a record. The list of detached disks belongs to documents, not to plans, and stays as it is."""
    async with entry.lock:
        stored = (await around.hypervisor.read(entry.desired.uid)).stored
        if stored is not None:
            await around.hypervisor.write_stored(_with_record(stored, record))


async def _start(around: Surroundings, entry: Entry, desired: Machine, action: Start) -> None:
    """Start the machine, unless its document has changed since the plan was made; then there is a new plan."""
    async with entry.lock:
        stored = (await around.hypervisor.read(desired.uid)).stored
        if stored is None or stored.desired != desired:
            return
        starting = _with_record(stored, action.record).model_copy(update={"started": desired.hardware})
        try:
            await _start_now(around, desired, starting, paused=action.paused)
        except UnavailableError:
            raise  # nothing is known of the start; the next look tells
        except NodeError as error:
            _LOG.warning("Starting failed", extra={"uid": desired.uid, "reason": str(error)})
            await around.hypervisor.write_stored(_with_record(stored, _failed(around, stored, action, error)))


async def _start_now(around: Surroundings, desired: Machine, starting: Stored, *, paused: bool) -> None:
    digest = desired.hardware.cloud_init_digest
    medium = around.media.path(desired.uid, digest) if digest else None
    disks = await asyncio.to_thread(around.disks.read_disks, desired.uid)
    log = around.console_log(desired.uid)
    await asyncio.to_thread(log.parent.mkdir, mode=0o711, parents=True, exist_ok=True)
    paths = resolve_paths(desired, disks, around.images.files, medium, log)
    confirmed = _with_record(starting, starting.record.model_copy(update={"life": Life.RUNNING}))
    xml = build_domain_xml(Guest(desired, around.facts, paths), starting)
    await around.hypervisor.start_machine(xml, confirmed, paused=paused)


def _failed(around: Surroundings, stored: Stored, action: Start, error: NodeError) -> Record:
    """Return the record after a failed start: the start token counts as served, since it was tried."""
    tried = action.record.model_copy(update={"started_at": stored.record.started_at})
    return failed_start(tried, str(error), around.now())


def _with_record(stored: Stored, record: Record) -> Stored:
    kept = record.model_copy(update={"detached": stored.record.detached})
    return stored.model_copy(update={"record": kept})
