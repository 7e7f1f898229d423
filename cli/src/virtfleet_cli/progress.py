"""How far a transfer, or something that the cluster does, is, on stderr; nothing where nobody looks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column


@dataclass(frozen=True)
class Share:
    """How much is done, of how much, and how that is written: "42%", "3/10"."""

    done: int
    of: int
    text: str


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
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[done]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True, expand=True) as progress:
        task = progress.add_task(name, total=None, done="", said="")

        def show(share: Share | None, said: str) -> None:
            if share:
                progress.update(task, completed=share.done, total=share.of, done=share.text)
            progress.update(task, said=said)

        yield show
