"""Pull the content of a disk's image into the disk while its guest runs. Everything here blocks.

QEMU copies what the disk has not of its own, then forgets the image. The job outlives the daemon and libvirtd.
"""

from contextlib import suppress

import libvirt

from virtfleet_node.core.errors import ConflictError


def begin_pull(connect: libvirt.virConnect, uid: str, target: str) -> None:
    """Begin, unless it goes on already."""
    domain = connect.lookupByUUIDString(uid)
    if not domain.blockJobInfo(target):
        domain.blockPull(target)


def read_pull(connect: libvirt.virConnect, uid: str, target: str) -> float | None:
    """Return the percentage that is done, None when there is nothing under way; ConflictError when the guest is off."""
    domain = connect.lookupByUUIDString(uid)
    if not domain.isActive():
        raise ConflictError("The guest ended while its disk was made independent.")
    info = domain.blockJobInfo(target)
    if not info:
        return None
    return 100.0 * float(info["cur"]) / info["end"] if info["end"] else 0.0


def abort_pull(connect: libvirt.virConnect, uid: str, target: str) -> None:
    """End it where it is; no error when there is nothing to end."""
    with suppress(libvirt.libvirtError):
        connect.lookupByUUIDString(uid).blockJobAbort(target)
