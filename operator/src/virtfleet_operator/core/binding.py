"""On which node a machine is.

The label `virtfleet.io/node` is the durable binding, but labels are within reach of users. A label that somebody
removed or changed must never lead to a second start elsewhere, so the status (which only the operator writes) and
what the nodes report have the last word, and a doubt means to wait.
"""

from collections.abc import Collection
from dataclasses import dataclass

from virtfleet_api.names import FINALIZER, NODE_LABEL
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine_status import VirtualMachineStatus


@dataclass(frozen=True, slots=True)
class Bound:
    """The machine is on this node, and label and finalizer say so."""

    node_name: str


@dataclass(frozen=True, slots=True)
class Restore:
    """The machine is on this node, but label or finalizer are gone: write both again."""

    node_name: str


@dataclass(frozen=True, slots=True)
class Unbound:
    """The machine is on no node: it may be placed."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The machine was bound, and where is not known yet: do nothing."""

    message: str


Binding = Bound | Restore | Unbound | Lost


def binding(
    meta: ObjectMeta,
    status: VirtualMachineStatus,
    reported_by: Collection[str] = (),
    *,
    fleet_complete: bool,
) -> Binding:
    """Return where a machine is.

    `reported_by` are the nodes that report its UID with a phase other than Absent; `fleet_complete` says that every
    VMNode has been heard, so that no report can be missing.
    """
    label = meta.labels.get(NODE_LABEL)
    node = _actual(label, status.node_name, reported_by)
    if node is not None:
        return Bound(node) if node == label and _held(meta) else Restore(node)
    if FINALIZER not in meta.finalizers or fleet_complete:
        return Unbound()
    return Lost(f"the label {NODE_LABEL} is gone; where the machine is shows when all nodes have been heard")


def _actual(label: str | None, written: str | None, reported_by: Collection[str]) -> str | None:
    """Prefer what the operator wrote, then what a node has, then the label.

    A node can report a UID only if it has been sent it, so no node can claim a machine it never had.
    """
    if written is not None:
        return written
    if label is None or (reported_by and label not in reported_by):
        return min(reported_by, default=label)
    return label


def _held(meta: ObjectMeta) -> bool:
    """Tell whether the finalizer is as it must be; it cannot be added any more once deletion has begun."""
    return FINALIZER in meta.finalizers or meta.deletion_timestamp is not None
