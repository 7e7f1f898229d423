"""Room in QEMU's cache of translated code for another emulated vCPU.

QEMU divides the cache into parts, and each vCPU writes to one that nobody else has begun. When all have been begun, a
vCPU that is there has the cache emptied; one that is being plugged ends QEMU: an assertion of
tcg_region_initial_alloc__locked, seen in 7.2. So a vCPU is plugged only while there are parts enough.
"""

import re
from typing import Final

_MIB_PER_PART: Final = 2
_PARTS_PER_VCPU: Final = 8
"""Figures of tcg_n_regions in QEMU's tcg/region.c."""

_FIGURES: Final = re.compile(r"gen code size +([0-9]+)/([0-9]+)")


def has_room(info: str, cache_mib: int, ceiling: int, wanted: int) -> bool:
    """Tell by QEMU's `info jit` whether vCPUs can be plugged until there are `wanted` of `ceiling`.

    Each vCPU has begun at most one part that is not full; one part more is left for what is translated meanwhile.
    """
    found = _FIGURES.search(info)
    if found is None:
        return False
    parts = _parts(cache_mib, ceiling)
    full = -(-int(found[1]) * parts // max(1, int(found[2])))
    return full + wanted + 1 <= parts


def _parts(cache_mib: int, ceiling: int) -> int:
    most = cache_mib // _MIB_PER_PART
    return ceiling if most <= ceiling else min(most, _PARTS_PER_VCPU * ceiling)
