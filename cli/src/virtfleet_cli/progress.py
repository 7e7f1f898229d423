"""How far a transfer, or something that the cluster does, is, on stderr; nothing where nobody looks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

Share = tuple[int, int]
"""How much is done, and of how much."""


@contextmanager
def transfer_progress(name: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar for as long as the context lasts; the function yielded takes the bytes that are done."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(name, total=total_bytes)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def work_progress(name: str) -> Iterator[Callable[[Share | None, str], None]]:
    """Show a bar for as long as the context lasts.

    The function yielded takes what is done, None if nobody knows, and what is waited for.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(name, total=None, said="")

        def show(share: Share | None, said: str) -> None:
            if share:
                progress.update(task, completed=share[0], total=share[1])
            progress.update(task, said=said)

        yield show
