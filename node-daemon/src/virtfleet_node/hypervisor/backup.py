"""Copy disks of a running guest into other files, by a push-mode backup job. Everything here blocks.

All disks of a job are copied as they are when it begins, in one transaction of QEMU's. A domain has one such job at a
time; it outlives libvirtd (seen with 9.0), and libvirtd then no longer says truly how it ended.
"""

from collections.abc import Mapping
from contextlib import suppress
from time import monotonic, sleep
from typing import Final

import libvirt
from lxml import etree

from virtfleet_node.core.desired.element import parse
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.hypervisor.calls import AGENT_SECONDS

PARTIAL: Final = ".partial"
"""Suffix of the files that our jobs write; a job with others is somebody else's."""

_ABORT_SECONDS: Final = 10.0
"""A job is gone 0.3 s after it was aborted, later when its file system is slow."""

_NONE: Final = libvirt.VIR_DOMAIN_JOB_NONE


def begin_backup(connect: libvirt.virConnect, uid: str, files: Mapping[str, str], *, freeze: bool) -> None:
    """Begin to copy the disks with these files into the files that are given for them, which exist.

    With `freeze` the guest's file systems are frozen around the beginning, if its agent can: then they are in order in
    the copy. Otherwise the copy is like a disk after a power failure.

    Raises:
        ConflictError: the running guest does not have one of the disks.
    """
    domain = connect.lookupByUUIDString(uid)
    xml = _build_xml(domain, files)
    try:
        if freeze:
            freeze_guest(domain)
        domain.backupBegin(xml, None, libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL)
    finally:
        if freeze:
            with suppress(libvirt.libvirtError):  # whoever asked for the freeze makes sure of it, see `thaw`
                domain.fsThaw()


def thaw(connect: libvirt.virConnect, uid: str) -> None:
    """Let a guest's file systems go on; no error if they do, or if the guest is off."""
    domain = connect.lookupByUUIDString(uid)
    if domain.isActive():
        domain.agentSetResponseTimeout(AGENT_SECONDS)
        domain.fsThaw()


def read_backup(connect: libvirt.virConnect, uid: str) -> float | None:
    """Return the percentage that is copied, None when all is; ConflictError when the job failed."""
    domain = connect.lookupByUUIDString(uid)
    if not domain.isActive():
        raise ConflictError("The guest ended while its disks were copied.")
    stats = domain.jobStats()
    if stats.get("type", _NONE) != _NONE:
        total = stats.get("disk_total", 0)
        return 100.0 * float(stats.get("disk_processed", 0)) / total if total else 0.0
    ended = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED)
    if ended.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP or not ended.get("success"):
        raise ConflictError(f"Copying the disks failed: {ended.get('errmsg', 'the job was ended')}.")
    return None


def abort_backup(connect: libvirt.virConnect, uid: str) -> None:
    """End a job of ours if there is one, and wait until it is gone.

    Raises:
        ConflictError: a job runs that is not ours, or ours does not end.
    """
    try:
        domain = connect.lookupByUUIDString(uid)
        targets = _targets(domain)
    except libvirt.libvirtError:
        return  # no domain, or no job
    if not all(target.endswith(PARTIAL) for target in targets):
        raise ConflictError("Another program copies the machine's disks; its job must end first.")
    end = monotonic() + _ABORT_SECONDS
    with suppress(libvirt.libvirtError):
        domain.abortJob()
    while domain.isActive() and domain.jobStats().get("type", _NONE) != _NONE:
        if monotonic() > end:
            raise ConflictError("An earlier copy of the machine's disks does not end.")
        sleep(0.05)


def list_backups(connect: libvirt.virConnect) -> tuple[str, ...]:
    """Return the UIDs of domains with a job of ours."""
    found = []
    for domain in connect.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        with suppress(libvirt.libvirtError):
            if all(target.endswith(PARTIAL) for target in _targets(domain)):
                found.append(domain.UUIDString())
    return tuple(found)


def _targets(domain: libvirt.virDomain) -> tuple[str, ...]:
    xml = parse(domain.backupGetXMLDesc())
    return tuple(target.get("file", "") for target in xml.iterfind("disks/disk/target"))


def freeze_guest(domain: libvirt.virDomain) -> bool:
    """Have the agent freeze the file systems; False when it does not answer, or cannot: they are taken as they are."""
    try:
        domain.agentSetResponseTimeout(AGENT_SECONDS)
        domain.fsFreeze()
    except libvirt.libvirtError:
        return False
    return True


def _build_xml(domain: libvirt.virDomain, files: Mapping[str, str]) -> str:
    """Name every disk of the domain: those to copy with their targets, the others as left out."""
    backup = etree.Element("domainbackup", mode="push")
    disks = etree.SubElement(backup, "disks")
    copied = set()
    for disk in parse(domain.XMLDesc(0)).iterfind("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        device = "" if target is None else target.get("dev", "")
        file = "" if source is None else source.get("file", "")
        if file not in files:
            etree.SubElement(disks, "disk", name=device, backup="no")
            continue
        copied.add(file)
        element = etree.SubElement(disks, "disk", name=device, backup="yes", type="file")
        etree.SubElement(element, "driver", type="qcow2")
        etree.SubElement(element, "target", file=files[file])
    if copied != set(files):
        raise ConflictError(
            "The running guest does not have all of the disks; they can be copied after its next start."
        )
    return etree.tostring(backup, encoding="unicode")
