"""Move the memory of a running process to other NUMA cells (migrate_pages(2)).

libvirt moves a guest's memory while it holds the guest's lock, and everybody who asks for that guest waits: after half
a minute it would take the daemon's connection for dead. What has been moved here before, libvirt finds in place.
"""

import ctypes
import logging
import os
from collections.abc import Iterable
from typing import Final

_LOG = logging.getLogger(__name__)

_MIGRATE_PAGES: Final = {"x86_64": 256, "aarch64": 238}
"""Number of the system call, which the C library has no function for."""

_BITS: Final = 1024
"""Cells that a mask has room for, the most that Linux can be built for (MAX_NUMNODES)."""


def move_pages(pid: int, sources: Iterable[int], targets: Iterable[int]) -> bool:
    """Move the memory of a process from cells to others; tell whether the kernel did so. Blocks long.

    A process that has ended, or a kernel that refuses, is no error: libvirt moves the memory all the same.
    """
    number = _MIGRATE_PAGES.get(os.uname().machine)
    if number is None:
        return False
    source, target = _mask(frozenset(sources)), _mask(frozenset(targets))
    library = ctypes.CDLL(None, use_errno=True)
    left = library.syscall(ctypes.c_long(number), ctypes.c_int(pid), ctypes.c_ulong(_BITS + 1), source, target)
    if left < 0:
        _LOG.info("Leaving memory to libvirt", extra={"pid": pid, "reason": os.strerror(ctypes.get_errno())})
    return bool(left >= 0)


def _mask(cells: frozenset[int]) -> "ctypes.Array[ctypes.c_ulong]":
    words = (sum(1 << bit for bit in range(64) if 64 * word + bit in cells) for word in range(_BITS // 64))
    return (ctypes.c_ulong * (_BITS // 64))(*words)
