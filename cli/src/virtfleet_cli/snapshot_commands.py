"""`kubectl vm snapshot`, `snapshots` and `restore`: reads arguments and prints, as the commands about machines do."""

import sys
from datetime import UTC, datetime
from typing import Any

import click

from virtfleet_api.vm_restore import VMRestore
from virtfleet_api.vm_snapshot import SnapshotMode, VMSnapshot
from virtfleet_cli import restore as restoring
from virtfleet_cli import snapshot as capturing
from virtfleet_cli.cluster import Cluster
from virtfleet_cli.errors import CliError
from virtfleet_cli.options import await_options, connection_options
from virtfleet_cli.restore import Target
from virtfleet_cli.running import run_command
from virtfleet_cli.snapshot_tree import render_snapshots
from virtfleet_cli.waiting import wait_for_end


@click.command()
@click.argument("machine", metavar="VM")
@click.argument("name", required=False)
@click.option(
    "--mode",
    type=click.Choice([str(mode) for mode in SnapshotMode], case_sensitive=False),
    default=str(SnapshotMode.MEMORY),
    show_default=True,
    help="Memory: disks and memory at one instant. Disk: the disks alone.",
)
@click.option("--no-quiesce", is_flag=True, help="With Disk: do not have the guest agent freeze the file systems.")
@click.option("--exclude-disk", "excluded", multiple=True, metavar="DISK", help="Leave a disk out; may be repeated.")
@click.option("--retain", is_flag=True, help="Keep the snapshot when the machine is deleted.")
@await_options
@connection_options
def snapshot(
    machine: str,
    name: str | None,
    *,
    mode: str,
    no_quiesce: bool,
    excluded: tuple[str, ...],
    retain: bool,
    **wait: Any,
) -> None:
    """Capture a machine VM as it is now, in a VMSnapshot NAME.

    Without NAME it is called after the machine and the time in UTC, such as web-1-20260301-120000. The machine may run,
    be paused or be off. `kubectl delete vmsnapshot NAME` deletes it.
    """

    async def act(cluster: Cluster) -> None:
        found = await cluster.get_machine(machine)
        called = name or capturing.snapshot_name(machine, datetime.now(UTC))
        manifest = capturing.build_snapshot(
            found, called, mode=SnapshotMode(mode), quiesce=not no_quiesce, exclude_disks=excluded, retain=retain
        )
        made = await cluster.create_object(VMSnapshot, manifest)
        click.echo(f"{capturing.resource_name('VMSnapshot', made)} created")
        if wait["wait"]:
            ended = await wait_for_end(cluster, VMSnapshot, called, capturing.look_at_snapshot, wait["timeout"])
            if failure := capturing.describe_failure(ended):
                raise CliError(failure)
            click.echo(capturing.describe_captured(ended))

    run_command(act)


@click.command()
@click.argument("machine", required=False, metavar="[VM]")
@connection_options
def snapshots(machine: str | None) -> None:
    """Show the snapshots of a machine, or of all, each below the one it follows."""

    async def act(cluster: Cluster) -> None:
        found = await cluster.list_objects(VMSnapshot)
        shown = [one for one in found if machine in {None, one["spec"]["virtualMachine"]}]
        if shown:
            click.echo(render_snapshots(shown, datetime.now(UTC)))
            return
        if machine:
            await cluster.get_machine(machine)
        whose = f"VirtualMachine {cluster.namespace}/{machine}" if machine else f"namespace {cluster.namespace}"
        click.echo(f"No snapshots found of {whose}.", err=True)

    run_command(act)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="[VM] SNAPSHOT")
@click.option("--new", "prefix", metavar="PREFIX", help="Make new machines, PREFIX-1, PREFIX-2 and so on.")
@click.option("--count", type=click.IntRange(1, 256), default=None, help="With --new: how many; 1 by default.")
@click.option("--reset-machine-id", is_flag=True, help="With --new: have each guest be given a machine-id of its own.")
@click.option("--no-memory", is_flag=True, help="Start the guest anew, although the snapshot has its memory.")
@click.option("--snapshot-first", is_flag=True, help="Capture the present state of VM before it is brought back.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@await_options
@connection_options
def restore(  # noqa: PLR0913 -- one for each flag
    names: tuple[str, ...],
    *,
    prefix: str | None,
    count: int | None,
    reset_machine_id: bool,
    no_memory: bool,
    snapshot_first: bool,
    yes: bool,
    **wait: Any,
) -> None:
    """Bring a machine VM back to a SNAPSHOT of it, or make new machines from the SNAPSHOT.

    \b
    kubectl vm restore web-1 web-1-before                 the machine becomes what it was
    kubectl vm restore --new build --count 10 warm        build-1 to build-10, going on from warm

    On a terminal you are asked before a machine is brought back, since what it has written since is lost.
    """  # noqa: D301 -- click's mark for lines that stay as they are
    target, name = _read_target(names, prefix, count, snapshot_first=snapshot_first, reset_machine_id=reset_machine_id)

    async def act(cluster: Cluster) -> None:
        found = await cluster.get_object(VMSnapshot, name)
        restoring.check_target(found, target)
        if target.machine and not yes and sys.stdin.isatty():
            question = restoring.ask_to_go_on(found, target.machine, datetime.now(UTC), snapshot_first=snapshot_first)
            click.confirm(question, abort=True, err=True)
        manifest = restoring.build_restore(found, target, memory=not no_memory, snapshot_first=snapshot_first)
        made = await cluster.create_object(VMRestore, manifest)
        click.echo(f"{capturing.resource_name('VMRestore', made)} created")
        if wait["wait"]:
            await _wait_for_machines(cluster, made["metadata"]["name"], wait["timeout"])

    run_command(act)


async def _wait_for_machines(cluster: Cluster, name: str, timeout_seconds: float) -> None:
    """Name the machines that are restored, also when others are not."""
    ended = await wait_for_end(cluster, VMRestore, name, restoring.look_at_restore, timeout_seconds)
    if restored := restoring.describe_restored(ended):
        click.echo(restored)
    if failure := restoring.describe_failure(ended):
        raise CliError(failure)


def _read_target(
    names: tuple[str, ...], prefix: str | None, count: int | None, *, snapshot_first: bool, reset_machine_id: bool
) -> tuple[Target, str]:
    """Return what is restored to what; UsageError says how to write it."""
    if prefix is None:
        if count is not None:
            raise click.UsageError("--count is of new machines; write --new PREFIX, too.")
        if reset_machine_id:
            raise click.UsageError("--reset-machine-id is of new machines; write --new PREFIX, too.")
        if len(names) != 2:  # noqa: PLR2004 -- the machine and the snapshot
            raise click.UsageError("Write VM SNAPSHOT to bring a machine back, or --new PREFIX SNAPSHOT.")
        return Target(machine=names[0]), names[1]
    if len(names) != 1:
        raise click.UsageError("With --new only the SNAPSHOT is named.")
    if snapshot_first:
        raise click.UsageError("--snapshot-first is of a machine that is brought back; new ones have no state before.")
    return Target(prefix=prefix, count=count or 1, reset_machine_id=reset_machine_id), names[0]
