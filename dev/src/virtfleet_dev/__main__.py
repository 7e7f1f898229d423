"""`virtfleet-dev up | down | quickstart`: a one-machine cluster from the command line."""

import time

import click
from rich.console import Console

from virtfleet_dev.cluster import Cluster
from virtfleet_dev.paths import default_dev_dir
from virtfleet_dev.quickstart import quickstart as run_quickstart

_CONSOLE = Console(highlight=False)


def _cluster() -> Cluster:
    start = time.monotonic()

    def say(text: str) -> None:
        _CONSOLE.print(f"[dim]{time.monotonic() - start:6.1f} s[/dim]  {text}")

    return Cluster(default_dev_dir(), say)


@click.group()
def main() -> None:
    """Run a whole virtfleet cluster on this machine."""


@main.command()
@click.option("--nodes", default=1, type=click.IntRange(1, 8), show_default=True, help="Hypervisor nodes.")
def up(nodes: int) -> None:
    """Start the cluster, or what of it does not run."""
    cluster = _cluster()
    cluster.up(nodes)
    cluster.say("Ready. Use it with:")
    _CONSOLE.print(f"\n  export KUBECONFIG={cluster.control_plane.kubeconfig}", soft_wrap=True)
    _CONSOLE.print(f"  export PATH={cluster.directory / 'bin'}:$PATH\n", soft_wrap=True)


@main.command()
def down() -> None:
    """Stop the cluster and remove everything it made."""
    cluster = _cluster()
    cluster.say("Stopping")
    cluster.remove()
    cluster.say("Nothing is left")


@main.command()
def quickstart() -> None:
    """From nothing to a running machine, step by step."""
    run_quickstart(_cluster(), _CONSOLE)


if __name__ == "__main__":
    main()
