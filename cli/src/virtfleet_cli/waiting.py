"""Waiting for what the cluster does, with a bar for who looks on."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from virtfleet_api.resource import Resource
from virtfleet_cli.cluster import Cluster
from virtfleet_cli.errors import CliError
from virtfleet_cli.progress import Share, work_progress
from virtfleet_cli.upload import patiently

POLL_SECONDS: Final = 0.5
"""How often to look: often enough for a person, and two requests a second are nothing."""


@dataclass(frozen=True)
class Stand:
    """How far an object is."""

    ended: bool = False
    """Nothing more becomes of it, be it well or ill."""
    share: Share | None = None
    said: str = ""
    """What it waits for."""


async def wait_for_end(
    cluster: Cluster,
    kind: type[Resource],
    name: str,
    look: Callable[[Mapping[str, Any]], Stand],
    timeout_seconds: float,
) -> dict[str, Any]:
    """Return the object once it has ended; CliError after the time, with what it waits for."""
    stand = Stand()
    try:
        async with asyncio.timeout(timeout_seconds):
            with work_progress(name) as show:
                while True:
                    found = await patiently(partial(cluster.get_object, kind, name))
                    if (stand := look(found)).ended:
                        return found
                    show(stand.share, stand.said)
                    await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        said = f": {stand.said}" if stand.said else "."
        what = f"{kind.__name__} {cluster.namespace}/{name}"
        raise CliError(f"{what} is not done within {timeout_seconds:g} s, and goes on{said}") from None
