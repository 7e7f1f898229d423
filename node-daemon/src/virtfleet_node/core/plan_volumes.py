"""Volumes of Kubernetes', as the next actions. Nobody tells when the kubelet has mounted one, so it is looked for."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from virtfleet_api.machine import Machine, MachineDisk, VolumeSource
from virtfleet_node.core.actions import AttachDisk, PrepareVolume
from virtfleet_node.core.attached import attachable, attached
from virtfleet_node.core.due import Change
from virtfleet_node.core.observed import Observed
from virtfleet_node.core.volumes import SeenVolume, say_missing

LOOK_FOR_VOLUMES: Final = timedelta(seconds=2)

_NOT_THERE: Final = SeenVolume()


def missing_volumes(desired: Machine, observed: Observed) -> tuple[MachineDisk, ...]:
    """Return the volumes that the guest does not have and cannot be given."""
    waiting = (disk for disk in desired.hardware.volumes if attached(disk, observed) is None)
    return tuple(disk for disk in waiting if not _seen(disk, observed).is_usable)


def volumes_wait(desired: Machine, observed: Observed) -> str:
    """Say why volumes cannot be given to the guest, as a sentence or some; empty when all can."""
    sources = ((d.source, _seen(d, observed)) for d in missing_volumes(desired, observed))
    return " ".join(say_missing(source, seen) for source, seen in sources if isinstance(source, VolumeSource))


def prepare_volumes(desired: Machine, observed: Observed) -> tuple[PrepareVolume, ...]:
    """Return how the files are made that are not there."""
    return tuple(step for disk in desired.hardware.volumes if (step := _prepare(disk, observed)) is not None)


def plan_volumes(desired: Machine, observed: Observed, now: datetime) -> Iterator[Change]:
    """Attach the volumes that are there to a running guest, and look again for those that are not."""
    for disk in desired.hardware.volumes:
        if attached(disk, observed) is not None or not attachable(disk, desired.hardware, observed):
            continue
        if not _seen(disk, observed).is_usable:
            yield Change(AttachDisk(disk), due=now + LOOK_FOR_VOLUMES)
        else:
            yield Change(_prepare(disk, observed) or AttachDisk(disk))


def _prepare(disk: MachineDisk, observed: Observed) -> PrepareVolume | None:
    seen = _seen(disk, observed)
    if seen.is_made or not seen.is_usable or not isinstance(disk.source, VolumeSource):
        return None
    return PrepareVolume(disk.name, disk.source, disk.size_bytes)


def _seen(disk: MachineDisk, observed: Observed) -> SeenVolume:
    return observed.volumes.get(disk.name, _NOT_THERE)
