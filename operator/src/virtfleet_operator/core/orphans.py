"""Machines on a node that no object stands for. They are shown and kept; nobody but an administrator removes them."""

from collections.abc import Iterable, Mapping
from typing import Final

from virtfleet_api.report import MachineReport, Phase

MAX_ORPHANS: Final = 100
"""As many as a status can carry and a person can look at; more means that the cluster lost its objects."""


def find_orphans(
    node_name: str, reports: Iterable[MachineReport], bindings: Mapping[str, str | None]
) -> tuple[str, ...]:
    """Return the UIDs of a node's machines that have no object, or whose object is bound to another node.

    `bindings` gives the node of every VirtualMachine by UID, None for one that is not bound yet.
    """
    missing = object()
    found = (
        report.uid
        for report in reports
        if report.phase != Phase.ABSENT and bindings.get(report.uid, missing) not in (node_name, None)
    )
    return tuple(sorted(found)[:MAX_ORPHANS])
