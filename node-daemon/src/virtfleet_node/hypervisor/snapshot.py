"""Capture running guests by external snapshots. Everything here blocks, some of it for as long as memory is written.

libvirt keeps nothing of a snapshot (NO_METADATA). It writes the memory while the guest runs, stops it, has QEMU switch
all disks to files that are there and empty, and lets it go on.

How long a guest stood still is read from the times in QEMU's own events, STOP to RESUME: the job's downtime knows
nothing of the switch of the disks, and libvirt's events are as late as whoever waits for them.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any, Final

import libvirt
import libvirt_qemu
from lxml import etree

from virtfleet_node.core.desired.element import parse
from virtfleet_node.core.errors import ConflictError, PoolFullError, UnavailableError
from virtfleet_node.hypervisor.backup import freeze_guest

_FLAGS: Final = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
)

_NONE: Final = libvirt.VIR_DOMAIN_JOB_NONE

_ABORT_SECONDS: Final = 20.0
"""A job is gone 0.3 s after it was aborted, later when its file system is slow."""

_EVENT_SECONDS: Final = 1.0
"""An event is told some milliseconds after the call whose end it is a part of."""

_KIB: Final = 1024


@dataclass(frozen=True)
class Taken:
    """What was captured of a running guest."""

    at: datetime
    """The instant."""
    pause_seconds: float = 0.0
    """How long the guest stood still."""
    frozen: bool = False
    """Its file systems were frozen meanwhile."""


@dataclass
class _Pause:
    """When the guest stood still, as QEMU tells."""

    at: datetime | None = None
    seconds: float | None = None

    def take(self, event: str, moment: datetime) -> None:
        """Take in an event of the guest's life."""
        if event == "STOP" and self.at is None:
            self.at = moment
        elif event == "RESUME" and self.at is not None and self.seconds is None:
            self.seconds = max(0.0, (moment - self.at).total_seconds())


def take(connect: libvirt.virConnect, uid: str, files: Mapping[str, str], memory: str | None, *, freeze: bool) -> Taken:
    """Capture a guest: it goes on in the files that are given for those of its disks.

    With `memory` the guest's memory is written to that file; with `freeze` its file systems are frozen around the
    switch, if its agent can. Disks with other files stay as they are.

    Raises:
        ConflictError: the running guest does not have one of the disks.
        PoolFullError: the memory image has filled its pool.
        UnavailableError: something else is done to the guest just now.
        libvirt.libvirtError: QEMU refuses, or the job was aborted; the guest goes on in the files it had, or has ended.
    """
    domain = connect.lookupByUUIDString(uid)
    xml = _build_xml(domain, files, memory)
    flags = _FLAGS | (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE if memory else libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    )
    frozen = False
    try:
        frozen = freeze and freeze_guest(domain)
        with _watched(connect, domain) as pause:
            before, running = datetime.now(UTC), domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
            _create(domain, xml, flags)
            if memory and running:
                _wait_resumed(pause)
    finally:
        if freeze:
            with suppress(libvirt.libvirtError):  # whoever asked for the freeze makes sure of it
                domain.fsThaw()
    return Taken(pause.at or (datetime.now(UTC) if memory else before), pause.seconds or 0.0, frozen)


def read_progress(connect: libvirt.virConnect, uid: str) -> float | None:
    """Return the percentage of the memory that is written; None when none is being written."""
    stats = connect.lookupByUUIDString(uid).jobStats()
    if stats.get("type", _NONE) == _NONE:
        return None
    total = stats.get("data_total", 0)
    return 100.0 * (total - float(stats.get("data_remaining", total))) / total if total else 0.0


def abort(connect: libvirt.virConnect, uid: str) -> None:
    """End the capture of a guest if there is one, and wait until it is gone.

    Raises:
        UnavailableError: it does not end.
    """
    try:
        domain = connect.lookupByUUIDString(uid)
        end = monotonic() + _ABORT_SECONDS
        while domain.isActive() and _is_capture(domain):
            if monotonic() > end:
                raise UnavailableError("The capture of a guest does not end.")
            with suppress(libvirt.libvirtError):
                domain.abortJob()
            sleep(0.05)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in {libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID}:
            raise


def read_resident(connect: libvirt.virConnect, uid: str) -> int:
    """Return how many bytes of the host's memory a running guest takes, which its image is hardly larger than."""
    return int(connect.lookupByUUIDString(uid).memoryStats().get("rss", 0)) * _KIB


def _is_capture(domain: libvirt.virDomain) -> bool:
    stats = domain.jobStats()
    return bool(
        stats.get("type", _NONE) != _NONE and stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT
    )


def _create(domain: libvirt.virDomain, xml: str, flags: int) -> None:
    try:
        domain.snapshotCreateXML(xml, flags)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_OPERATION_TIMEOUT:
            raise UnavailableError(f"Something else is done to the guest just now: {error}") from error
        if os.strerror(errno.ENOSPC) in str(error):  # libvirt has no code of its own for it
            raise PoolFullError(
                "The pool has no room left for the memory image: free space in it, or capture the disks alone "
                "(mode: Disk)."
            ) from error
        raise


@contextmanager
def _watched(connect: libvirt.virConnect, domain: libvirt.virDomain) -> Iterator[_Pause]:
    pause = _Pause()

    def tell(_: libvirt.virConnect, __: libvirt.virDomain, event: str, seconds: int, micros: int, *_more: Any) -> None:
        pause.take(event, datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros))

    regex = libvirt_qemu.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX
    callback = libvirt_qemu.qemuMonitorEventRegister(connect, domain, "STOP|RESUME", tell, None, regex)
    try:
        yield pause
    finally:
        with suppress(libvirt.libvirtError):
            libvirt_qemu.qemuMonitorEventDeregister(connect, callback)


def _wait_resumed(pause: _Pause) -> None:
    end = monotonic() + _EVENT_SECONDS
    while pause.seconds is None and monotonic() < end:
        sleep(0.002)


def _build_xml(domain: libvirt.virDomain, files: Mapping[str, str], memory: str | None) -> str:
    """Name every disk of the domain: those to capture with the files that take their places, the others as left out."""
    snapshot = etree.Element("domainsnapshot")
    if memory is None:
        etree.SubElement(snapshot, "memory", snapshot="no")
    else:
        etree.SubElement(snapshot, "memory", snapshot="external", file=memory)
    disks = etree.SubElement(snapshot, "disks")
    captured = set()
    for disk in parse(domain.XMLDesc(0)).iterfind("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        device = "" if target is None else target.get("dev", "")
        file = "" if source is None else source.get("file", "")
        if file not in files:
            etree.SubElement(disks, "disk", name=device, snapshot="no")
            continue
        captured.add(file)
        element = etree.SubElement(disks, "disk", name=device, snapshot="external", type="file")
        etree.SubElement(element, "driver", type="qcow2")
        etree.SubElement(element, "source", file=files[file])
    if captured != set(files):
        raise ConflictError("The running guest does not have all of the disks; capture it after its next start.")
    return etree.tostring(snapshot, encoding="unicode")
