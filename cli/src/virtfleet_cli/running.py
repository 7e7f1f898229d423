"""How every command runs: against the cluster that the user chose, with one sentence for what went wrong."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click

from virtfleet_cli.cluster import Choice, Cluster
from virtfleet_cli.errors import CliError

Act = Callable[[Cluster], Coroutine[Any, Any, None]]


def run_command(act: Act) -> None:
    """Run a command; an error is one sentence and exit status 1."""
    choice = click.get_current_context().obj or Choice()

    async def run() -> None:
        async with await Cluster.connect(choice) as cluster:
            await act(cluster)

    try:
        asyncio.run(run())
    except CliError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)  # who read our output has seen enough
