"""The PersistentVolumeClaims that are a machine's disks, the pods that shall hold them, and what its node is told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from virtfleet_api.machine import Machine, MachineDisk, Run, VolumeMode, VolumeSource
from virtfleet_api.quantity import Bytes
from virtfleet_api.report import MachineReport, Phase
from virtfleet_api.virtual_machine import Disk, VirtualMachine
from virtfleet_operator.core.compile import run_of
from virtfleet_operator.core.holder import (
    Body,
    Holder,
    is_ending,
    is_holding,
    is_ours,
    is_over,
    obstacle,
    other_volumes,
    uses_image,
)
from virtfleet_operator.core.verdict import Waiting, quote

CLAIM_NOT_FOUND: Final = "ClaimNotFound"
VOLUME_PENDING: Final = "VolumePending"
VOLUMES_DISABLED: Final = "VolumesDisabled"

ENDED_STAYS: Final = timedelta(seconds=10)
"""How old a pod is at least that has ended and is made anew: one that ends at once is not made again and again."""

LETS_GO_AFTER: Final = timedelta(seconds=20)
"""A guest that is asked to let go of a disk either has by then, or its node says that it holds it."""

_SECTOR: Final = 512
_ON: Final = frozenset({Phase.STARTING, Phase.RUNNING, Phase.PAUSED, Phase.STOPPING, Phase.CRASH_LOOP})


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim, as far as a machine needs it."""

    name: str
    mode: VolumeMode = VolumeMode.FILESYSTEM
    size_bytes: int | None = None
    """What its volume has, or what is asked for as long as there is none."""
    volume: str | None = None
    """Name of its PersistentVolume."""


Claims = Mapping[str, Claim]
"""By the name of the disk."""


@dataclass(frozen=True, slots=True)
class HolderPlan:
    """Which pods to create, and which to delete, by name."""

    create: tuple[Holder, ...] = ()
    delete: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    """Those that hold what the machine's spec names no more; its guest may still have it."""
    look_again: bool = False
    """A pod is to be deleted later, and nothing will tell when."""


def volume_disks(vm: VirtualMachine) -> Iterator[tuple[int, Disk, str]]:
    """Return the disks that are PersistentVolumeClaims, with their places in the spec and the names of the claims."""
    for index, disk in enumerate(vm.spec.disks):
        if disk.source.pvc is not None:
            yield index, disk, disk.source.pvc.claim_name


def read_claim(body: Body) -> Claim:
    """Read a PersistentVolumeClaim's JSON."""
    spec, status = body["spec"], body.get("status") or {}
    asked = (spec.get("resources") or {}).get("requests") or {}
    size = (status.get("capacity") or {}).get("storage") or asked.get("storage")
    return Claim(
        name=body["metadata"]["name"],
        mode=VolumeMode(spec.get("volumeMode") or VolumeMode.FILESYSTEM),
        size_bytes=_whole_sectors(str(size)) if size is not None else None,
        volume=spec.get("volumeName") or None,
    )


def claim_not_found(index: int, name: str) -> Waiting:
    """Say that a claim is not there."""
    said = f"there is no PersistentVolumeClaim {quote(name)}: create it or name another"
    return Waiting(CLAIM_NOT_FOUND, f"spec.disks[{index}].source.pvc: {said}", watched=False)


def volumes_disabled(vm: VirtualMachine) -> Waiting | None:
    """Say that a machine that shall run has disks that this operator is not configured for; None when it has not."""
    first = next(volume_disks(vm), None)
    if first is None or run_of(vm) is Run.STOPPED:
        return None
    said = "this operator makes no pods to hold PersistentVolumeClaims: set volumes.enabled in its configuration"
    return Waiting(VOLUMES_DISABLED, f"spec.disks[{first[0]}].source.pvc: {said}, or remove the disk")


def shall_hold(run: Run, generation: int, report: MachineReport | None, *, heard: bool) -> bool | None:
    """Tell whether a bound machine's claims shall be held: while it shall run, or its guest is on.

    Returns:
        None when nobody knows whether the guest is on, or the node may be about to start it, as it does not know this
        generation of the spec yet: what is there stays.
    """
    if run in (Run.RUNNING, Run.PAUSED) or (report is not None and report.phase in _ON):
        return True
    knows = report is None or report.generation >= generation
    return False if heard and knows else None


def build_holders(vm: VirtualMachine, claims: Claims, node_name: str) -> tuple[Holder, ...]:
    """Return the pods that hold a machine's claims on its node."""
    return tuple(
        Holder(vm.metadata, disk.name, name, claims[disk.name].mode, node_name)
        for _, disk, name in volume_disks(vm)
        if disk.name in claims
    )


def plan_holders(wanted: Sequence[Holder], found: Mapping[str, Body], image: str, now: datetime) -> HolderPlan:
    """Plan the pods of a machine; `found` are those that carry its UID, by name.

    One that has ended is deleted, and made anew once it is gone; so is one that does not run with the image that it
    was made with, when there is another by now.
    """
    names = {holder.name for holder in wanted}
    surplus = sorted(name for name, pod in found.items() if name not in names and not is_ending(pod))
    delete = []
    look_again = False
    for holder in wanted:
        pod = found.get(holder.name)
        if pod is None or not is_ours(pod, holder) or is_ending(pod) or is_holding(pod):
            continue
        if not is_over(pod) and uses_image(pod, image):
            continue
        if is_over(pod) and _created(pod) + ENDED_STAYS > now:
            look_again = True
        else:
            delete.append(holder.name)
    create = tuple(holder for holder in wanted if holder.name not in found)
    return HolderPlan(create, tuple(sorted(delete)), tuple(surplus), look_again)


def has_let_go(generation: int, report: MachineReport | None) -> bool:
    """Tell whether a guest has no disk any more that its spec does not name, as far as its node says."""
    if report is None or report.phase not in _ON:
        return True
    return report.generation >= generation and not report.held_disks and not report.restart_required


def with_volumes(document: Machine, claims: Claims, wanted: Sequence[Holder], found: Mapping[str, Body]) -> Machine:
    """Return a document with the modes and sizes of its volumes, and where its node finds those that are held."""
    holders = {holder.disk: holder for holder in wanted}
    disks = tuple(
        _with_volume(disk, claims.get(disk.name), _holding(holders.get(disk.name), claims.get(disk.name), found))
        if disk.is_volume
        else disk
        for disk in document.hardware.disks
    )
    return document.model_copy(update={"hardware": document.hardware.model_copy(update={"disks": disks})})


def pending(vm: VirtualMachine, claims: Claims, wanted: Sequence[Holder], found: Mapping[str, Body]) -> Waiting | None:
    """Say which claim of a machine is not held yet and why; None when all are."""
    holders = {holder.disk: holder for holder in wanted}
    for index, disk, name in volume_disks(vm):
        holder = holders.get(disk.name)
        if holder is None or _holding(holder, claims.get(disk.name), found):
            continue
        pod, where = found.get(holder.name), f"spec.disks[{index}].source.pvc"
        if pod is not None and not is_ours(pod, holder):
            return foreign(index, holder)
        said = obstacle(pod) if pod else "it is being created"
        about = f"pod {holder.name}, which holds PersistentVolumeClaim {quote(name)}, does not run yet"
        return Waiting(VOLUME_PENDING, f"{where}: {about}: {said}")
    return None


def refused(index: int, holder: Holder, words: str) -> Waiting:
    """Say that the API server does not take a pod, such as for a quota."""
    about = f"pod {holder.name}, which would hold PersistentVolumeClaim {quote(holder.claim)}, cannot be created"
    return Waiting(VOLUME_PENDING, f"spec.disks[{index}].source.pvc: {about}: {words}", watched=False)


def foreign(index: int, holder: Holder) -> Waiting:
    """Say that somebody else's pod has the name."""
    said = f"pod {holder.name} is not one that virtfleet made to hold PersistentVolumeClaim {quote(holder.claim)}"
    return Waiting(VOLUME_PENDING, f"spec.disks[{index}].source.pvc: {said}: delete it", watched=False)


def _holding(holder: Holder | None, claim: Claim | None, found: Mapping[str, Body]) -> Body | None:
    """Return the pod that holds a claim now.

    The kubelet's folder is searched for the name of the PersistentVolume: no other volume of the pod may have it.
    """
    pod = found.get(holder.name) if holder else None
    if pod is None or holder is None or claim is None or claim.volume is None:
        return None
    return pod if is_holding(pod) and is_ours(pod, holder) and claim.volume not in other_volumes(pod) else None


def _with_volume(disk: MachineDisk, claim: Claim | None, pod: Body | None) -> MachineDisk:
    if claim is None:
        return disk
    source = VolumeSource(
        claim=claim.name,
        mode=claim.mode,
        pod_uid=pod["metadata"]["uid"] if pod else None,
        volume=claim.volume if pod else None,
    )
    return disk.model_copy(update={"source": source, "size_bytes": disk.size_bytes or claim.size_bytes})


def _whole_sectors(quantity: str) -> int | None:
    """Return a quantity of Kubernetes' in bytes, whole sectors of them; None for what is none."""
    try:
        size = int(Bytes.parse(quantity))
    except ValueError:
        try:
            size = int(Decimal(quantity))  # with an exponent
        except (InvalidOperation, ValueError, OverflowError):
            return None
    return size // _SECTOR * _SECTOR or None


def _created(pod: Body) -> datetime:
    return datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
