"""What the node says of a machine: desired and observed, summarised."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from virtfleet_api.machine import Hardware, Machine, Run
from virtfleet_api.report import (
    CLONING,
    RESTORING,
    WAITING_FOR_COPIES,
    WAITING_FOR_DEVICE,
    WAITING_FOR_NETWORK,
    WIPING,
    DiskReport,
    InterfaceReport,
    MachineReport,
    NumaReport,
    Phase,
    RetainedDisk,
    StopReason,
)
from virtfleet_api.steady import steady_allocation
from virtfleet_api.virtual_machine import ReclaimPolicy
from virtfleet_node.core.attached import unwanted
from virtfleet_node.core.backoff import next_start_at
from virtfleet_node.core.cards import attached_card, card_name, unwanted_cards
from virtfleet_node.core.changed import changed_fields, held_disks, held_interfaces
from virtfleet_node.core.changed_compute import held_compute
from virtfleet_node.core.desired.boot import build_machine_type
from virtfleet_node.core.desired.cpu_tune import live_scheduling
from virtfleet_node.core.full_pool import explain
from virtfleet_node.core.guest_devices import assigned_devices, device_waits, held_devices
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import DomainState, Observed
from virtfleet_node.core.places import assign
from virtfleet_node.core.plan import media_missing, missing_images, restart_pending, switch_missing
from virtfleet_node.core.plan_clones import plan_clones
from virtfleet_node.core.plan_volumes import volumes_wait
from virtfleet_node.core.record import Record
from virtfleet_node.core.report_restore import build_restore, say_step
from virtfleet_node.core.settle import settle, stays_off
from virtfleet_node.core.wanted_compute import current_vcpus, memory_ceiling

VOLUME_MISSING: Final = "VolumeMissing"

Standing = tuple[Phase, str, str]
"""Phase, reason and message."""


def build_report(
    desired: Machine, observed: Observed, facts: GuestFacts, now: datetime, trouble: Standing | None = None
) -> MachineReport:
    """Return the report of a machine. `trouble` is what kept the last plan from being carried out."""
    record = settle(desired, observed, now)
    phase, reason, message = _stand(desired, observed, record, now, trouble)
    active, stored = observed.domain.active, observed.domain.stored
    started = stored.started if active and stored else None
    hardware = started or desired.hardware
    return MachineReport(
        uid=desired.uid,
        namespace=desired.namespace,
        name=desired.name,
        generation=desired.generation,
        phase=phase,
        reason=reason,
        message=message,
        started_at=record.started_at if active else None,
        restarts=record.failures,
        next_start_at=next_start_at(record, now) if phase is Phase.CRASH_LOOP else None,
        last_stop=record.last_stop,
        machine_type=observed.domain.machine_type or build_machine_type(hardware),
        cpu_model=hardware.cpu_model,
        display=started.display or "" if started else "",
        numa=_numa(observed),
        reservation_hz=_reservation(desired, observed),
        **_compute(hardware, observed),
        disks=_disks(desired.hardware, observed),
        interfaces=_interfaces(desired.hardware, observed, facts),
        agent_connected=active and observed.domain.agent_connected,
        guest=facts.guest if active else None,
        restart_required=_restart_required(started, desired, observed),
        held_compute=held_compute(desired.hardware, observed, now) if active else (),
        held_disks=held_disks(desired.hardware, observed, now) if active else (),
        held_interfaces=held_interfaces(desired.hardware, observed, now) if active else (),
        devices=assigned_devices(observed),
        held_devices=held_devices(desired.hardware, observed, now) if active else (),
        restore=build_restore(desired, observed, record),
        kept_disks=_retained(desired, observed, record) if phase is Phase.ABSENT else (),
    )


def _compute(hardware: Hardware, observed: Observed) -> dict[str, int]:
    """Report vCPUs and memory: of a running guest what it has, else what it would be started with."""
    vcpus, memory = observed.domain.vcpus, observed.domain.memory
    return {
        "vcpus": current_vcpus(vcpus, observed) if vcpus else hardware.vcpus,
        "max_vcpus": vcpus.ceiling if vcpus else hardware.vcpu_ceiling,
        "memory_bytes": memory.current_bytes if memory else hardware.memory_bytes,
        "max_memory_bytes": memory_ceiling(memory, observed) if memory else hardware.memory_ceiling_bytes,
        "balloon_bytes": memory.balloon_bytes if memory else 0,
    }


def _reservation(desired: Machine, observed: Observed) -> int:
    """Return what is kept of the node's CPUs: for the next start, and for a guest that still has more."""
    wanted = desired.hardware.scheduling.reservation_hz
    if not observed.domain.active:
        return wanted
    return max(wanted, live_scheduling(desired, observed.domain.stored).reservation_hz)


def _restart_required(started: Hardware | None, desired: Machine, observed: Observed) -> tuple[str, ...]:
    """Return what waits for the next start; nothing of a machine that is to go, which has none."""
    if started is None or desired.run is Run.ABSENT:
        return ()
    return changed_fields(started, desired.hardware, observed)


def _stand(desired: Machine, observed: Observed, record: Record, now: datetime, trouble: Standing | None) -> Standing:
    if observed.domain.state is DomainState.ABSENT and desired.run is Run.ABSENT:
        return Phase.ABSENT, "", ""
    if (busy := _stand_wanted(desired, observed) or _stand_restoring(desired, observed, record, trouble)) is not None:
        return busy
    if observed.domain.active:
        standing = _stand_active(desired, observed, record)
        return (standing[0], *trouble[1:]) if trouble and not standing[1] else standing
    if trouble is not None:
        return trouble
    if desired.run in {Run.STOPPED, Run.ABSENT}:
        return _stand_down(desired, observed)
    return _stand_off(desired, observed, record, now)


def _stand_down(desired: Machine, observed: Observed) -> Standing:
    """Say how a machine rests that shall be off."""
    if desired.run is Run.ABSENT:
        return Phase.STOPPING, WIPING if observed.work else "Removing", observed.work or "The machine is being removed."
    if plan_clones(desired, observed):
        return Phase.PROVISIONING, CLONING, observed.work
    return Phase.STOPPED, "", ""


def _stand_active(desired: Machine, observed: Observed, record: Record) -> Standing:
    stopping = record.stopping_since is not None or restart_pending(desired, record)
    if stopping or desired.run in {Run.STOPPED, Run.ABSENT}:
        return Phase.STOPPING, "", "The guest has been asked to shut down."
    if observed.domain.state is DomainState.CRASHED:
        return Phase.STOPPING, "GuestCrashed", "The guest crashed and is switched off."
    if observed.full_pools:
        return Phase.PAUSED, "PoolFull", explain(observed.full_pools)
    if observed.domain.disk_error:
        return (
            Phase.PAUSED,
            "DiskError",
            "A disk could not be written: see the node's log; the guest goes on by itself.",
        )
    waits = (WAITING_FOR_NETWORK, observed.network_problem) if switch_missing(desired, observed) else ("", "")
    if not waits[0] and (missing := device_waits(desired, observed)):
        waits = (WAITING_FOR_DEVICE, missing)
    if not waits[0] and (missing := volumes_wait(desired, observed)):
        waits = (VOLUME_MISSING, missing)
    return (Phase.PAUSED if observed.domain.state is DomainState.PAUSED else Phase.RUNNING), *waits


def _stand_off(desired: Machine, observed: Observed, record: Record, now: datetime) -> Standing:
    asked = restart_pending(desired, record)
    if stays_off(desired, record) and not asked:
        return _stand_ended(record)
    if not asked and (record.ended or record.start_error) and now < next_start_at(record, now):
        return _stand_waiting(record)
    if plan_clones(desired, observed):
        return Phase.PROVISIONING, CLONING, observed.work
    return _stand_ready(desired, observed)


def _stand_ready(desired: Machine, observed: Observed) -> Standing:
    """Say what a machine waits for that starts next."""
    if media_missing(desired, observed):
        return Phase.PROVISIONING, "CloudInitMissing", "The cloud-init medium is missing and must be sent again."
    if images := missing_images(desired, observed):
        return Phase.PROVISIONING, "WaitingForImage", f"Waiting for {len(images)} image(s) to be ready on the node."
    return _stand_placed(desired, observed)


def _stand_placed(desired: Machine, observed: Observed) -> Standing:
    """Say what of the node a machine waits for, whose documents and images are there."""
    if switch_missing(desired, observed):
        return Phase.PROVISIONING, WAITING_FOR_NETWORK, observed.network_problem
    if volumes := volumes_wait(desired, observed):
        return Phase.PROVISIONING, VOLUME_MISSING, volumes
    if observed.no_place is not None:
        return Phase.PROVISIONING, observed.no_place.reason, observed.no_place.message
    if waits := device_waits(desired, observed):
        return Phase.PROVISIONING, WAITING_FOR_DEVICE, waits
    complete = all(observed.stored_disk(disk) is not None for disk in desired.hardware.own_disks)
    return (Phase.STARTING if complete else Phase.PROVISIONING), "", ""


def _stand_wanted(desired: Machine, observed: Observed) -> Standing | None:
    if desired.run is not Run.ABSENT or not observed.wanted_by:
        return None
    names = ", ".join(observed.wanted_by)
    said = f"The machine stays until its disks are copied for {names}; delete what shall not be made."
    return Phase.STOPPING, WAITING_FOR_COPIES, said


def _stand_restoring(desired: Machine, observed: Observed, record: Record, trouble: Standing | None) -> Standing | None:
    if record.restoring is None or desired.run is Run.ABSENT:
        return None
    return trouble or (Phase.PROVISIONING, RESTORING, say_step(observed, record.restoring))


def _stand_ended(record: Record) -> Standing:
    """Say how a guest rests that ended by itself."""
    if record.last_stop is StopReason.GUEST_SHUTDOWN:
        return Phase.STOPPED, "GuestShutdown", "The guest shut down by itself."
    return Phase.FAILED, record.last_stop or "", f"{_sentence(record)} It is not restarted by its run strategy."


def _stand_waiting(record: Record) -> Standing:
    reason = "StartFailed" if record.start_error else "BackOff"
    return Phase.CRASH_LOOP, reason, f"{_sentence(record)} Starting again after a pause."


def _sentence(record: Record) -> str:
    if record.start_error:
        return f"Starting failed: {record.start_error.rstrip('.')}."
    words = {
        StopReason.GUEST_CRASHED: "The guest crashed.",
        StopReason.QEMU_FAILED: "The guest's QEMU process ended unexpectedly.",
        StopReason.GUEST_SHUTDOWN: "The guest shut down by itself.",
    }
    return words.get(record.last_stop, "The guest ended.") if record.last_stop else "The guest ended."


def _numa(observed: Observed) -> NumaReport | None:
    """Report where a running machine lies, on a host that has cells."""
    placement = observed.placement
    if placement is None or not observed.domain.active:
        return None
    return NumaReport(cells=placement.cells, policy=placement.policy, message=placement.message)


def _disks(hardware: Hardware, observed: Observed) -> tuple[DiskReport, ...]:
    """Report the disks that are there: those of the document, and those that a guest still has."""
    targets = assign(observed.places, hardware).targets
    about = _about_disks(observed)
    seen = {Path(disk.file): disk.target for disk in observed.domain.disks}
    wanted = (observed.stored_disk(disk) for disk in hardware.own_disks)
    held = {disk.file for disk in unwanted(hardware, observed)}
    found = (*(disk for disk in wanted if disk), *(disk for disk in observed.disks if str(disk.path) in held))
    return tuple(
        DiskReport(
            name=disk.name,
            pool=disk.pool,
            target=seen.get(disk.path) or targets[disk.name],
            capacity_bytes=disk.capacity_bytes,
            allocated_bytes=disk.allocated_bytes,
            backing_image_uid=disk.backing_image_uid,
            message=about.get((disk.pool, disk.name), ""),
        )
        for disk in found
    )


def _about_disks(observed: Observed) -> dict[tuple[str, str], str]:
    """Return what goes on with disks, by pool and name."""
    said = {}
    if (folding := observed.folding) is not None:
        said[folding.pool, folding.disk] = folding.waits or observed.merging
    if observed.flattening is not None:
        pool, name, said[pool, name] = observed.flattening
    return said


def with_steady_memory(report: MachineReport, before: MachineReport | None, wanted_bytes: int) -> MachineReport:
    """Return the report with the memory as it was told before, where that has not moved by a step.

    A guest moves what it has at any time, within what it is offered. That it has what it shall have is always told.
    """
    if before is None or report.memory_bytes == wanted_bytes or report.phase is not before.phase:
        return report
    if steady_allocation(before.memory_bytes, report.memory_bytes) != before.memory_bytes:
        return report
    told = {"memory_bytes": before.memory_bytes, "balloon_bytes": before.balloon_bytes}
    held = {"held_compute": before.held_compute} if before.held_compute and report.held_compute else {}
    return report.model_copy(update={**told, **held})


def with_steady_disks(report: MachineReport, before: MachineReport | None) -> MachineReport:
    """Return the report with what disks take as it was told before, where that has not moved by a step."""
    if before is None:
        return report
    told = {(disk.pool, disk.name): disk.allocated_bytes for disk in before.disks}
    disks = (_with_allocation(disk, told.get((disk.pool, disk.name)), disk.allocated_bytes) for disk in report.disks)
    return report.model_copy(update={"disks": tuple(disks)})


def with_allocations(report: MachineReport, seen: Mapping[tuple[str, str], int]) -> MachineReport:
    """Return the report with what disks take now, by pool and name, where that has moved by a step."""
    disks = (_with_allocation(disk, disk.allocated_bytes, seen.get((disk.pool, disk.name))) for disk in report.disks)
    return report.model_copy(update={"disks": tuple(disks)})


def _with_allocation(disk: DiskReport, told: int | None, now: int | None) -> DiskReport:
    if now is None:
        return disk
    return disk.model_copy(update={"allocated_bytes": steady_allocation(told, now)})


def _interfaces(hardware: Hardware, observed: Observed, facts: GuestFacts) -> tuple[InterfaceReport, ...]:
    """Report the cards: of a guest those that it has, in the order of the document, then those that it still holds."""
    if not observed.domain.active:
        return tuple(InterfaceReport(name=i.name, mac=i.mac, port=i.port, state=i.state) for i in hardware.interfaces)
    wanted = (attached_card(interface, observed) for interface in hardware.interfaces)
    found = (*(card for card in wanted if card), *unwanted_cards(hardware, observed))
    return tuple(
        InterfaceReport(
            name=card_name(card, observed.domain),
            mac=card.mac,
            ip_addresses=facts.addresses.get(card.mac, ()),
            port=card.port,
            state=card.state,
        )
        for card in found
    )


def _retained(desired: Machine, observed: Observed, record: Record) -> tuple[RetainedDisk, ...]:
    """Return the disks that are left: kept by their policy, or named by no document."""
    named = {(d.pool, d.name): d.reclaim_policy for d in (*record.detached, *desired.hardware.own_disks)}
    kept = (d for d in observed.disks if named.get((d.pool, d.name), ReclaimPolicy.RETAIN) is ReclaimPolicy.RETAIN)
    return tuple(
        RetainedDisk(
            name=disk.name,
            pool=disk.pool,
            capacity_bytes=disk.capacity_bytes,
            allocated_bytes=disk.allocated_bytes,
        )
        for disk in kept
    )
