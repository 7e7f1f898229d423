"""What of a change of an object concerns others, so that no more is looked at than has to be."""

from virtfleet_api.quantity import Frequency
from virtfleet_api.vm_image import ImagePhase
from virtfleet_operator.core.restores import ENDED
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.reconcile.catalog import UNBOUND, bound_node
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.loads import running_load


def counts(machine: Stored | None) -> object:
    """Return what of a machine tells its snapshots whether it stays, and schedules whether it is theirs."""
    return None if machine is None else (machine.uid, machine.meta.labels, machine.meta.deletion_timestamp)


def ended_machines(old: Stored | None, new: Stored | None) -> set[str]:
    """Return the machines that a restore has ended for since, by name: another may be waiting for one of them."""
    before, after = (
        {machine.name for machine in stored.status.machines if machine.phase in ENDED} if stored else set()
        for stored in (old, new)
    )
    return after - before


def reserved(machine: Stored) -> Frequency | None:
    """Return what the machine's node says it keeps for it."""
    return machine.status.machine.reservation if machine.status.machine else None


def is_settled(context: Context, node: str, uid: str) -> bool:
    """Tell whether an image at a node is not on its way any more."""
    state = context.fleet.node(node)
    report = state.images.get(uid) if state else None
    return report is None or report.phase in (ImagePhase.READY, ImagePhase.FAILED)


def offers_change(old: Stored | None, new: Stored | None) -> bool:
    """Say whether a node may offer something else: its spec, its labels, or itself. Its status is the operator's."""
    if old is None or new is None:
        return True
    if old.body.get("spec") != new.body.get("spec") or old.meta.labels != new.meta.labels:
        return True
    return old.meta.deletion_timestamp != new.meta.deletion_timestamp


def room_may_change(old: Stored | None, new: Stored | None) -> bool:
    """Say whether a machine's change may make room for another, or bring it the neighbour that it waits for.

    A machine that is on no node takes no room; its binding and its labels count once it is. Its status says what the
    guest still has, and which disks the node's report counts from then on.
    """
    if new is None:
        return old is not None and bound_node(old) != UNBOUND
    if old is None or bound_node(old) != bound_node(new):
        return bound_node(new) != UNBOUND
    if bound_node(new) == UNBOUND:
        return False
    if old.body.get("spec") != new.body.get("spec") or old.meta.labels != new.meta.labels:
        return True
    if running_load(old.status) != running_load(new.status):
        return True
    return bool(old.status.disks != new.status.disks or old.status.devices != new.status.devices)


def device_rules(node: Stored) -> object:
    """Return what a node says its device classes are made of."""
    return node.body.get("spec", {}).get("devices")


def addresses(node: Stored | None) -> object:
    """Return where a node is reached, which all others let in."""
    return None if node is None else (node.status.address, node.status.tunnel_address)
