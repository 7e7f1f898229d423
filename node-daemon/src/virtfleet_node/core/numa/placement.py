"""Where a machine lies on the host's NUMA cells: chosen at its start, changed by a move, kept with its document."""

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.virtual_machine_status import NumaPolicy


class Placement(Document):
    """The cells of a machine, and the CPUs that are its own."""

    policy: NumaPolicy
    cells: tuple[int, ...]
    """CPUs and memory come from these, in equal parts."""
    vnuma: bool = False
    """The guest has a NUMA cell for each of them, bound to it."""
    cpus: dict[int, int] = Field(default_factory=dict)
    """The host's CPU of each vCPU, with dedicated CPUs."""
    message: str = ""
    """Why it was moved last."""


def guest_cell(vcpu: int, vcpus: int, cells: int, *, grows: bool = False) -> int:
    """Return the guest's cell of a vCPU: neighbours share one, and each has as many as the others, or one more.

    Of a guest that may be given more they go to cells by turns, so that those of its beginning are even, too.
    """
    return vcpu % cells if grows else vcpu * cells // vcpus


def split_memory(memory_bytes: int, cells: int, page_bytes: int) -> tuple[int, ...]:
    """Return the memory of each guest cell, in whole pages; the first ones have a page more if need be."""
    pages = -(-memory_bytes // page_bytes)
    return tuple((pages // cells + (index < pages % cells)) * page_bytes for index in range(cells))
