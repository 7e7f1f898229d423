"""Merge layers of a running guest's disk, and put an empty layer above it. Everything here blocks.

QEMU writes the upper layer into the lower one, then has the child lie on that. The job outlives daemon and libvirtd.
"""

from contextlib import suppress
from time import monotonic, sleep
from typing import Final

import libvirt
from lxml import etree

from virtfleet_node.core.desired.element import parse
from virtfleet_node.core.errors import ConflictError

_ABORT_SECONDS: Final = 10.0

_ADD: Final = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
)


def add_layer(connect: libvirt.virConnect, uid: str, target: str, file: str) -> None:
    """Have a running guest write into this file, which is there and empty, and read what its disk is now through it."""
    domain = connect.lookupByUUIDString(uid)
    domain.snapshotCreateXML(_build_xml(_targets(domain), target, file), _ADD)


def begin_commit(
    connect: libvirt.virConnect, uid: str, target: str, lower: str, upper: str, bytes_per_second: int
) -> None:
    """Begin to write the upper layer into the lower one, which are both below the one that the guest writes."""
    domain = connect.lookupByUUIDString(uid)
    domain.blockCommit(target, lower, upper, bytes_per_second, libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES)


def find_commit(connect: libvirt.virConnect, uid: str) -> str | None:
    """Return the device name of a disk whose layers are being merged, None when there is none."""
    domain = connect.lookupByUUIDString(uid)
    return next((target for target in _targets(domain) if _is_commit(domain, target)), None)


def read_commit(connect: libvirt.virConnect, uid: str, target: str) -> float | None:
    """Return the percentage that is done, None when there is nothing under way; ConflictError when the guest is off."""
    domain = connect.lookupByUUIDString(uid)
    if not domain.isActive():
        raise ConflictError("The guest ended while layers of its disk were merged.")
    info = domain.blockJobInfo(target)
    if not info:
        return None
    return 100.0 * float(info["cur"]) / info["end"] if info["end"] else 0.0


def abort_commit(connect: libvirt.virConnect, uid: str, target: str) -> None:
    """End it where it is, and wait until it is gone; no error when there is nothing to end.

    Without ASYNC libvirt waits itself, and lets nobody change the domain meanwhile: for ever, if it has missed the end.

    Raises:
        ConflictError: it does not end.
    """
    domain, end = connect.lookupByUUIDString(uid), monotonic() + _ABORT_SECONDS
    with suppress(libvirt.libvirtError):
        domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC)
    while domain.isActive() and domain.blockJobInfo(target):
        if monotonic() > end:
            raise ConflictError("An earlier merge of layers does not end.")
        sleep(0.05)


def _is_commit(domain: libvirt.virDomain, target: str) -> bool:
    return bool(domain.blockJobInfo(target).get("type") == libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT)


def _targets(domain: libvirt.virDomain) -> list[str]:
    """Return the device names of a running guest's disks; none of one that is off."""
    if not domain.isActive():
        return []
    disks = parse(domain.XMLDesc(0)).iterfind("devices/disk[@device='disk']/target")
    return [target.get("dev", "") for target in disks]


def _build_xml(targets: list[str], target: str, file: str) -> str:
    snapshot = etree.Element("domainsnapshot")
    disks = etree.SubElement(snapshot, "disks")
    for other in targets:
        if other != target:
            etree.SubElement(disks, "disk", name=other, snapshot="no")
    disk = etree.SubElement(disks, "disk", name=target, snapshot="external", type="file")
    etree.SubElement(disk, "driver", type="qcow2")
    etree.SubElement(disk, "source", file=file)
    return etree.tostring(snapshot, encoding="unicode")
