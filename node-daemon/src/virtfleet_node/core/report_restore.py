"""What the node says of a machine's restore."""

from virtfleet_api.machine import Machine, Run
from virtfleet_api.report import RestoreReport
from virtfleet_node.core.observed import Observed
from virtfleet_node.core.plan_restore import restore_pending
from virtfleet_node.core.record import Record
from virtfleet_node.core.restoring import Restoring


def build_restore(desired: Machine, observed: Observed, record: Record) -> RestoreReport | None:
    """Report the restore that is under way, else the one that is asked for, else the last one."""
    if record.restoring is not None:
        return RestoreReport(token=record.restoring.token, message=say_step(observed, record.restoring))
    if desired.restore is not None and restore_pending(desired, record):
        waits = "It waits until the machine's disks are no longer copied." if observed.disks_in_use else ""
        return RestoreReport(token=desired.restore.token, message=waits)
    if not record.restored_token:
        return None
    if record.machine_id_due and observed.domain.active and desired.run is Run.RUNNING:
        return RestoreReport(token=record.restored_token, message="The guest's agent writes a machine-id of its own.")
    return RestoreReport(
        token=record.restored_token,
        done=True,
        warm=record.restored_warm,
        message=record.restore_error,
        note=f"Its machine-id is that of the snapshot: {record.machine_id_error}" if record.machine_id_error else "",
    )


def say_step(observed: Observed, restoring: Restoring) -> str:
    """Say how far a restore is."""
    if restoring.error:
        return f"The disks become what they were before: {restoring.error}"
    if observed.domain.active:
        return "The guest is switched off, to be put back."
    there = {(disk.pool, disk.path.name) for disk in observed.disks}
    if any((layer.pool, layer.file) not in there for layer in restoring.layers):
        return "The disks are put back."
    return "The guest is started from memory." if restoring.memory else "The disks are put back."
