"""Waits to lead, leads, and ends. Decides nothing about machines.

Whatever ends unexpectedly ends the process: it starts again, and leads again with a higher epoch.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from typing import Any, Final

from virtfleet_operator.health import Health, serve_health
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.connection import read_connection
from virtfleet_operator.kube.lease import LeaderLease, LeaseLostError, LeaseTimes
from virtfleet_operator.leading import Leading
from virtfleet_operator.metrics import Metrics
from virtfleet_operator.settings import Settings

log: Final = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Wait to lead, lead, and give the lease up when asked to stop.

    Raises:
        KubeError: the API server lacks what is needed, such as the CRDs.
    """
    stop = asyncio.Event()
    listen_for_signals(stop)
    health, metrics = Health(), Metrics()
    connection = await read_connection(settings.kubeconfig)
    async with KubeClient(connection, metrics.answered) as client:
        times = LeaseTimes(settings.lease.duration_seconds, settings.lease.renew_seconds)
        lease = LeaderLease(client, settings.namespace, settings.identity, times)
        leading = Leading(settings, connection, client, lease, metrics, health)
        where = settings.metrics
        async with serve_health(where.host, where.port, health, metrics.registry, leading.refresh_gauges):
            health.waiting = lambda: lease.trouble
            if await _unless_stopped(lease.acquire(), stop):
                health.waiting = None
                await _lead(lease, leading, stop)


def listen_for_signals(stop: asyncio.Event) -> None:
    """Have SIGTERM and SIGINT ask for a clean end."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _lead(lease: LeaderLease, leading: Leading, stop: asyncio.Event) -> None:
    keeping = asyncio.create_task(_keep(lease), name="lease")
    try:
        # kopf sets signal handlers of its own when it starts; ours must win.
        await leading.run(stop, lambda: listen_for_signals(stop))
    finally:
        keeping.cancel()
        await lease.release()


async def _keep(lease: LeaderLease) -> None:
    """Keep the lease, or end the process at once: every further instruction would be one of a former leader."""
    try:
        await lease.keep()
    except LeaseLostError as error:
        log.critical("Ending", extra={"action": "elect", "reason": str(error)})
        logging.shutdown()
        os._exit(1)


async def _unless_stopped(work: Coroutine[Any, Any, object], stop: asyncio.Event) -> bool:
    """Do the work; say whether it was done before somebody asked to stop."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    return False
