"""Carry out the steps of a restore. Which ones, the plan decides; here is only how."""

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from virtfleet_api.machine import Machine
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.look_at_layers import layers_free, snapshot_free
from virtfleet_node.agent.observe import observe, remember_asking
from virtfleet_node.agent.resolve import resolve_disk, resolve_media_there
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.captured import Captured
from virtfleet_node.core.desired.guest import Guest, ResolvedPaths
from virtfleet_node.core.errors import ConflictError, NodeError, PoolFullError, UnavailableError
from virtfleet_node.core.numa.choose import Refused
from virtfleet_node.core.numa.host import build_wish
from virtfleet_node.core.numa.pins import build_guest_cells, is_everywhere
from virtfleet_node.core.observed import Observed
from virtfleet_node.core.plan_restore import find_counterparts, given_up, restored_warm
from virtfleet_node.core.plan_woken import kept_machine_id
from virtfleet_node.core.record import Record, Stored
from virtfleet_node.core.restore_actions import (
    CLOCK,
    MACHINE_ID,
    BeginRestore,
    DropLayers,
    MakeLayers,
    RestoreAction,
    SetClock,
    SetMachineId,
    StartWarm,
    TidyLayers,
)
from virtfleet_node.core.restoring import Restoring
from virtfleet_node.core.save_image import SaveImageHead
from virtfleet_node.core.warm_domain import Saved, WarmDomain, WarmFiles, build_warm_domain
from virtfleet_node.hypervisor.warm import WarmStart

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


async def carry_out_restore(around: Surroundings, entry: Entry, desired: Machine, action: RestoreAction) -> None:
    """Carry out one step that was planned for `desired`; NodeError."""
    uid, restores = desired.uid, around.disks.restores
    match action:
        case BeginRestore(record):
            await _begin(around, entry, record)
        case MakeLayers(restoring):
            async with entry.copying, entry.lock:
                await entry.end_readers()
                async with layers_free(around, uid), snapshot_free(around, restoring.snapshot_uid):
                    await _make_layers(around, uid, restoring)
        case DropLayers(restoring):
            async with entry.copying, entry.lock:
                await entry.end_readers()
                await asyncio.to_thread(restores.drop_layers, uid, restoring)
        case StartWarm():
            async with entry.copying, entry.lock:
                await _start(around, entry, desired, action)
        case TidyLayers():
            restores.hold(uid, None)
            await asyncio.to_thread(restores.tidy, uid)
        case SetClock():
            await _set_clock(around, entry)
        case SetMachineId():
            await _set_machine_id(around, entry)


async def _begin(around: Surroundings, entry: Entry, record: Record) -> None:
    """Keep the intent, and hold what the disks are now before others can remove it."""
    if entry.copying.locked():
        return  # the next plan waits
    async with entry.copying, entry.lock:
        stored = (await around.hypervisor.read(entry.desired.uid)).stored
        if stored is None or record.restoring is None:
            return
        around.disks.restores.hold(entry.desired.uid, record.restoring)
        entry.restoring = record.restoring
        await around.hypervisor.write_stored(_with_record(stored, record))


async def _make_layers(around: Surroundings, uid: str, restoring: Restoring) -> None:
    try:
        await around.disks.restores.make_layers(uid, restoring)
    except OSError as error:
        raise _told(error, ", ".join(sorted({layer.pool for layer in restoring.layers}))) from None


async def _start(around: Surroundings, entry: Entry, desired: Machine, action: StartWarm) -> None:
    """Start the guest, unless the document has changed since the plan was made; then there is a new plan."""
    stored = (await around.hypervisor.read(desired.uid)).stored
    restoring = action.record.restoring
    if stored is None or stored.desired != desired or restoring is None:
        return
    observed = await observe(around, desired.uid, entry)
    captured = observed.snapshot.kept.captured if observed.snapshot else None
    if captured is None:
        return  # the next plan says so
    await entry.end_readers()
    await around.cells.look()
    placement = around.cells.reserve(desired.uid, captured.hardware)
    if isinstance(placement, Refused):
        return  # another machine came first
    starting = _with_record(stored, action.record).model_copy(update={"placement": placement, "devices": ()})
    try:
        async with layers_free(around, desired.uid):
            now = await observe(around, desired.uid, entry)  # what a merge has left may have been named anew
            await _Warm(around, desired, now, captured, restoring).start(starting)
    except (UnavailableError, PoolFullError):
        raise  # nothing is known of the start, or there will be room
    except NodeError as error:
        _LOG.warning("Starting from memory failed", extra={"uid": desired.uid, "reason": str(error)})
        failed = given_up(action.record, f"The guest could not be started from memory: {error}")
        await around.hypervisor.write_stored(_with_record(stored, failed))
    finally:
        around.cells.release(desired.uid)
        await asyncio.to_thread(around.disks.restores.remove_copy, desired.uid)


class _Warm:
    """One start from memory."""

    def __init__(
        self, around: Surroundings, desired: Machine, observed: Observed, captured: Captured, restoring: Restoring
    ) -> None:
        self._around = around
        self._desired = desired
        self._observed = observed
        self._captured = captured
        self._restoring = restoring

    async def start(self, stored: Stored) -> None:
        """Start it, and keep that the restore is done; the guest is paused."""
        around, uid, restores = self._around, self._desired.uid, self._around.disks.restores
        head = await asyncio.to_thread(restores.read_head, self._restoring.snapshot_uid)
        files = await self._resolve()
        domain = build_warm_domain(
            Saved(head.description, self._captured.hardware, self._captured.places), self._desired, files
        )
        starting = stored.model_copy(update={"started": domain.hardware, "places": domain.places})
        guest = self._guest(starting)
        image, description = await self._image(domain, guest)
        start = WarmStart(uid, image, domain.build_xml(guest, starting), description, domain.strangers)
        confirmed = _with_record(starting, restored_warm(starting.record, self._restoring))

        async def confirm() -> None:
            await asyncio.to_thread(restores.remove_copy, uid)

        await around.hypervisor.start_warm(start, confirm, confirmed)
        restores.hold(uid, None)
        await asyncio.to_thread(restores.tidy, uid)

    async def _image(self, domain: WarmDomain, guest: Guest) -> tuple[Path, str | None]:
        """Return the image to start from, and the description that takes the place of its own.

        libvirt takes no description of another machine: such a guest starts from a copy that has its own.
        """
        restores, xml = self._around.disks.restores, domain.build_xml(guest)
        snapshot = self._observed.snapshot
        if snapshot is not None and snapshot.kept.document.machine_uid == self._desired.uid:
            return await asyncio.to_thread(restores.memory_file, self._restoring.snapshot_uid), xml

        def describe(_: SaveImageHead) -> str:
            return xml

        try:
            uid, snapshot_uid = self._desired.uid, self._restoring.snapshot_uid
            return await asyncio.to_thread(restores.copy_memory, uid, snapshot_uid, describe), None
        except OSError as error:
            raise _told(error, "of the snapshot") from None

    async def _resolve(self) -> WarmFiles:
        around, desired, observed = self._around, self._desired, self._observed
        log = around.console_log(desired.uid)
        await asyncio.to_thread(log.parent.mkdir, mode=0o711, parents=True, exist_ok=True)
        digest = desired.hardware.cloud_init_digest
        named = find_counterparts(desired, observed, observed.snapshot) if observed.snapshot else {}
        stored = {name: observed.stored_disk(disk) for name, disk in named.items()}
        return WarmFiles(
            disks={name: resolve_disk(file, around.images.files) for name, file in stored.items() if file is not None},
            console_log=log,
            cloud_init=around.media.path(desired.uid, digest) if digest else None,
            media=resolve_media_there(self._captured.hardware.drives, around.images.files),
        )

    def _guest(self, starting: Stored) -> Guest:
        """Return what tells where the guest runs on the host."""
        hardware, pinning = self._captured.hardware, self._around.cells.pinning(self._desired.uid)
        return Guest(
            self._desired.model_copy(update={"hardware": hardware}),
            self._around.facts,
            ResolvedPaths(console_log=self._around.console_log(self._desired.uid)),
            starting.places,
            pinning=None if pinning is None or is_everywhere(pinning) else pinning,
            cells=build_guest_cells(build_wish(hardware), starting.placement),
        )


async def _set_clock(around: Surroundings, entry: Entry) -> None:
    """Have the guest's clock set; an agent that does not answer is asked again later."""
    if await _answer(around, entry, CLOCK, around.hypervisor.set_clock(entry.desired.uid, around.now())) is not None:
        await _keep(around, entry, lambda record: record.model_copy(update={"clock_behind": False}))


async def _set_machine_id(around: Surroundings, entry: Entry) -> None:
    """Have the guest's own machine-id written; an agent that does not answer is asked again, until it is given up."""
    why = await _answer(around, entry, MACHINE_ID, around.hypervisor.set_machine_id(entry.desired.uid))
    if why is not None:
        await _keep(around, entry, lambda record: kept_machine_id(record, why))


async def _answer(around: Surroundings, entry: Entry, key: str, question: Awaitable[T]) -> T | None:
    """Return what the guest's agent answers; None when it does not. UnavailableError when nobody could ask it."""
    remember_asking(around, entry, key)
    try:
        return await question
    except UnavailableError:
        raise
    except NodeError:
        return None


async def _keep(around: Surroundings, entry: Entry, change: Callable[[Record], Record]) -> None:
    async with entry.lock:
        stored = (await around.hypervisor.read(entry.desired.uid)).stored
        if stored is not None:
            await around.hypervisor.write_stored(_with_record(stored, change(stored.record)))


def _told(error: OSError, pool: str) -> NodeError:
    if error.errno == errno.ENOSPC:
        return PoolFullError(f"Pool {pool} is full: free space in it, and the restore goes on.")
    return ConflictError(f"Pool {pool} fails: {error.strerror}.")


def _with_record(stored: Stored, record: Record) -> Stored:
    kept = record.model_copy(update={"detached": stored.record.detached})
    return stored.model_copy(update={"record": kept})
