"""`kubectl vm …`: the command line. It reads arguments and prints; what a command means is in modules of its own."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from virtfleet_api.vm_image import ImageType
from virtfleet_cli.clone import build_clone, check_names, describe_created, plan_clone, render
from virtfleet_cli.cluster import Cluster
from virtfleet_cli.console import print_history, run_console
from virtfleet_cli.describe import clean, describe_machine
from virtfleet_cli.errors import CliError
from virtfleet_cli.forward_commands import port_forward, scp, ssh
from virtfleet_cli.options import Duration, connection_options, output_options, wait_options
from virtfleet_cli.ports import Machine, render_ports
from virtfleet_cli.power import (
    Change,
    describe_state,
    has_happened,
    plan_pause,
    plan_restart,
    plan_resume,
    plan_start,
    plan_stop,
)
from virtfleet_cli.progress import transfer_progress
from virtfleet_cli.running import run_command
from virtfleet_cli.screenshot import take_picture, write_picture
from virtfleet_cli.snapshot_commands import restore, snapshot, snapshots
from virtfleet_cli.terminal import Terminal
from virtfleet_cli.upload import Upload, prepare_image
from virtfleet_cli.vnc import show_display
from virtfleet_cli.waiting import POLL_SECONDS

Plan = Callable[[dict[str, Any]], Change]


@click.group(name="kubectl-vm", context_settings={"help_option_names": ["-h", "--help"]})
@connection_options
def main() -> None:
    """Start, stop and reach virtual machines. `kubectl get vm` lists them."""


@main.command()
@click.argument("name")
@wait_options
@connection_options
def start(name: str, *, wait: bool, timeout: float) -> None:
    """Start a machine that is off, or whose guest has ended."""
    _power(name, lambda machine: plan_start(machine, datetime.now(UTC)), timeout if wait else None)


@main.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Switch it off at once, like pulling the plug.")
@wait_options
@connection_options
def stop(name: str, *, force: bool, wait: bool, timeout: float) -> None:
    """Shut a machine down and keep it off.

    Sets runStrategy Halted, or powerState Stopped under Manual. With --force, terminationGracePeriodSeconds becomes 0
    until the next `kubectl vm start` puts it back.
    """
    _power(name, lambda machine: plan_stop(machine, force=force), timeout if wait else None)


@main.command()
@click.argument("name")
@wait_options
@connection_options
def restart(name: str, *, wait: bool, timeout: float) -> None:
    """Restart a machine gracefully; also applies what waits for a restart."""
    _power(name, lambda machine: plan_restart(machine, datetime.now(UTC)), timeout if wait else None)


@main.command()
@click.argument("name")
@wait_options
@connection_options
def pause(name: str, *, wait: bool, timeout: float) -> None:
    """Freeze a machine; its memory stays where it is."""
    _power(name, plan_pause, timeout if wait else None)


@main.command()
@click.argument("name")
@wait_options
@connection_options
def resume(name: str, *, wait: bool, timeout: float) -> None:
    """Let a paused machine go on."""
    _power(name, plan_resume, timeout if wait else None)


@main.command()
@click.argument("source")
@click.argument("name")
@click.option("--full", is_flag=True, help="Copy disks whole; by default they share the image of the source's disks.")
@click.option("--start/--no-start", default=None, help="Run the clone, or keep it off; by default as the source.")
@output_options
@wait_options
@connection_options
def clone(
    source: str, name: str, *, full: bool, start: bool | None, output: str | None, dry_run: str, **wait: Any
) -> None:
    """Make a machine NAME like the machine SOURCE, with copies of its disks.

    SOURCE may run: its disks are copied as they are at one moment. What must be its own alone, such as a MAC address,
    is left out. With `-o yaml --dry-run` the manifest is only printed.
    """
    check_names(source, name)

    async def act(cluster: Cluster) -> None:
        made = build_clone(await cluster.get_machine(source), name, full=full, start=start)
        if dry_run != "client":
            made = await cluster.create_machine(made, dry_run=dry_run == "server")
        click.echo(render(made, output) if output else describe_created(made, dry_run))
        if wait["wait"] and dry_run == "none":
            click.echo(await _wait(cluster, name, plan_clone(made), wait["timeout"]))

    run_command(act)


@main.command()
@click.argument("name", required=False)
@connection_options
def ports(name: str | None) -> None:
    """Show the network cards of a machine, or of all: switch, addresses, and what has passed."""

    async def act(cluster: Cluster) -> None:
        found = [await cluster.get_machine(name)] if name else await cluster.list_machines()
        read = await asyncio.gather(*(_count(cluster, machine) for machine in found))
        click.echo(render_ports(machine for machine, _ in read))
        for trouble in sorted({trouble for _, trouble in read if trouble}):
            click.echo(f"No figures: {clean(trouble)}", err=True)

    run_command(act)


async def _count(cluster: Cluster, machine: dict[str, Any]) -> tuple[Machine, str]:
    """Ask what has passed a machine's cards; say why if nobody knows."""
    if not (machine.get("status") or {}).get("nodeName"):
        return Machine(machine), ""
    try:
        return Machine(machine, (await cluster.list_interfaces(machine["metadata"]["name"])).items), ""
    except CliError as error:
        return Machine(machine), str(error)


@main.command()
@click.argument("name")
@connection_options
def describe(name: str) -> None:
    """Show all about a machine on one page."""

    async def act(cluster: Cluster) -> None:
        machine = await cluster.get_machine(name)
        events = await cluster.list_events(machine["metadata"]["uid"])
        Console(highlight=False).print(describe_machine(machine, events, datetime.now(UTC)))

    run_command(act)


@main.command()
@click.argument("name")
@click.option("--history", is_flag=True, help="Print the last output and leave.")
@click.option("--timeout", type=Duration(), default=None, help="Leave after this time.")
@connection_options
def console(name: str, *, history: bool, timeout: float | None) -> None:
    """Open the serial console of a machine; Ctrl-] leaves.

    Input and output may be pipes: `echo | kubectl vm console web-1 --timeout 5s`.
    """

    async def act(cluster: Cluster) -> None:
        terminal = Terminal()
        if history:
            await print_history(cluster, name, terminal)
        else:
            await run_console(cluster, name, terminal, timeout)

    run_command(act)


@main.command()
@click.argument("name")
@click.option("--port", type=click.IntRange(1, 65535), help="Loopback port to listen on; any that is free by default.")
@click.option("--viewer", help="Viewer to start; remote-viewer or a vncviewer by default.")
@click.option("--proxy-only", is_flag=True, help="Start no viewer; print the port as JSON and serve until Ctrl-C.")
@connection_options
def vnc(name: str, *, port: int | None, viewer: str | None, proxy_only: bool) -> None:
    """Show the display of a machine, which has one with `display: {}` in its spec.

    Listens on a loopback port for a VNC viewer, and starts one.
    """

    async def act(cluster: Cluster) -> None:
        await show_display(cluster, name, port=port, viewer=viewer, proxy_only=proxy_only)

    run_command(act)


@main.command()
@click.argument("name")
@click.option("-o", "--output", help="File to write; NAME.png by default, - for stdout.")
@connection_options
def screenshot(name: str, *, output: str | None) -> None:
    """Take a picture of a machine's display, as PNG."""

    async def act(cluster: Cluster) -> None:
        write_picture(await take_picture(cluster, name), output or f"{name}.png")

    run_command(act)


@main.group()
def image() -> None:
    """Bring images into the cluster. `kubectl get vmimages` lists them."""


@image.command()
@click.argument("name")
@click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file to send: raw or qcow2, ISO, or a kernel.",
)
@click.option(
    "--type", "kind", type=click.Choice(list(ImageType)), help="What the file is; Disk for a VMImage that is made."
)
@click.option("--pool", help="Storage pool of the nodes that keeps it; the default one for a VMImage that is made.")
@connection_options
def upload(name: str, *, path: Path, kind: ImageType | None, pool: str | None) -> None:
    """Send a file to a VMImage, which is made if it is not there; goes on where an earlier upload stopped."""
    size = path.stat().st_size

    async def act(cluster: Cluster) -> None:
        given = {"type": kind and str(kind), "pool": pool}
        made = await prepare_image(cluster, name, {field: value for field, value in given.items() if value})
        if made:
            click.echo(f"VMImage {name} is made.")
        with transfer_progress(name, size) as show:
            state = await Upload(cluster, name, path, show).run()
        click.echo(f"VMImage {name} is {state.phase}.")

    run_command(act)


def _power(name: str, plan: Plan, timeout_seconds: float | None) -> None:
    async def act(cluster: Cluster) -> None:
        machine = await cluster.get_machine(name)
        change = plan(machine)
        if change.patch:
            machine = await cluster.patch_machine(name, change.patch)
        click.echo(change.sentence)
        if timeout_seconds is not None:
            click.echo(await _wait(cluster, name, change, timeout_seconds))

    run_command(act)


async def _wait(cluster: Cluster, name: str, change: Change, timeout_seconds: float) -> str:
    machine: dict[str, Any] = {}
    try:
        async with asyncio.timeout(timeout_seconds):
            while not has_happened(change, machine := await cluster.get_machine(name)):  # noqa: ASYNC110 -- elsewhere
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        state = describe_state(machine) if machine else "unknown"
        raise CliError(f"It has not happened within {timeout_seconds:g} s; the machine is {state}") from None
    return f"It is {describe_state(machine).rstrip('.')}."


main.add_command(port_forward)
main.add_command(ssh)
main.add_command(scp)
main.add_command(snapshot)
main.add_command(snapshots)
main.add_command(restore)

if __name__ == "__main__":
    main()
