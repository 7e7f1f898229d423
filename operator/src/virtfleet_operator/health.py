"""/healthz, /readyz and /metrics. It says what others found out; it finds out nothing itself."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Check = Callable[[], str | None]
"""Returns what is wrong, if something is."""

LEADING: Final = "leads"
WAITING: Final = "waits to lead"
"""What /readyz says of an operator that is ready."""


@dataclass
class Health:
    """Whether this process lives, and whether it leads or could."""

    ready: bool = False
    """It leads, and its cache is filled."""
    waiting: Check | None = None
    """It waits to lead; the check says what keeps it from ever doing so. None: it does not wait."""
    checks: list[Check] = field(default_factory=list)

    def problem(self) -> str | None:
        """Return the first thing that is wrong."""
        return next((problem for check in self.checks if (problem := check())), None)

    def readiness(self) -> tuple[bool, str]:
        """Return whether it leads or could lead at any moment, and what there is to say of it."""
        if problem := self.problem():
            return False, problem
        if self.waiting is not None:
            problem = self.waiting()
            return problem is None, problem or WAITING
        return self.ready, LEADING if self.ready else "the cache is being filled"


@asynccontextmanager
async def serve_health(
    host: str, port: int, health: Health, registry: CollectorRegistry, refresh: Callable[[], None]
) -> AsyncIterator[None]:
    """Serve the three paths for as long as the context lasts; `refresh` sets gauges before they are read."""

    async def healthz(_: web.Request) -> web.Response:
        problem = health.problem()
        return web.Response(status=500 if problem else 200, text=problem or "ok")

    async def readyz(_: web.Request) -> web.Response:
        ready, text = health.readiness()
        return web.Response(status=200 if ready else 500, text=text)

    async def metrics(_: web.Request) -> web.Response:
        refresh()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
