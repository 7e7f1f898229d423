"""Runs kopf inside this process until told to.

kopf ends every task that was made while it ran: it is to be stopped last.
"""

import asyncio
from collections.abc import Callable

import kopf


async def run_kopf(
    registry: kopf.OperatorRegistry,
    settings: kopf.OperatorSettings,
    stop: asyncio.Event,
    started: Callable[[], None],
) -> None:
    """Run kopf until stopped; `started` is called when it has set its own signal handlers."""
    ready = asyncio.Event()
    operator = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=settings,
            clusterwide=True,
            standalone=True,
            # For peers, of which it has none. kopf would ask for the name of its user, which a container may not have.
            identity="virtfleet-operator",  # type: ignore[arg-type]
            ready_flag=ready,
            stop_flag=stop,
        ),
        name="kopf",
    )
    waiting = asyncio.create_task(ready.wait(), name="kopf starts")
    await asyncio.wait({operator, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    started()
    await operator
