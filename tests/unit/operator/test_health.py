"""The operator says that it is ill while a watch is dead, and well again when the watch speaks."""

import asyncio

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from virtfleet_dev.control_plane import free_port
from virtfleet_operator.handlers import watch
from virtfleet_operator.handlers.watch import WatchActivity
from virtfleet_operator.health import LEADING, WAITING, Health, serve_health

SHORT_SECONDS = 0.05


async def ask(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_a_dead_watch_is_named_by_both_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "DEAD_AFTER_SECONDS", SHORT_SECONDS)
    health, port = Health(ready=True), free_port()
    async with serve_health("127.0.0.1", port, health, CollectorRegistry(), lambda: None):
        assert await ask(port, "/healthz") == (200, "ok")
        assert await ask(port, "/readyz") == (200, LEADING)
        health.checks.append(WatchActivity(lambda _: None).problem)
        await asyncio.sleep(2 * SHORT_SECONDS)  # the silence is the fault
        for path in ("/healthz", "/readyz"):
            status, text = await ask(port, path)
            assert status == 500
            assert "the watch of virtualmachines is silent" in text


async def test_who_fills_its_cache_lives_and_is_not_ready() -> None:
    port = free_port()
    async with serve_health("127.0.0.1", port, Health(), CollectorRegistry(), lambda: None):
        assert (await ask(port, "/healthz"))[0] == 200
        assert (await ask(port, "/readyz"))[0] == 500


async def test_who_waits_to_lead_is_ready_as_long_as_nothing_keeps_it_from_leading() -> None:
    trouble: list[str] = ["the lease cannot be had: 403"]
    health, port = Health(waiting=lambda: trouble[-1] if trouble else None), free_port()
    async with serve_health("127.0.0.1", port, health, CollectorRegistry(), lambda: None):
        assert await ask(port, "/readyz") == (500, "the lease cannot be had: 403")
        assert (await ask(port, "/healthz"))[0] == 200
        trouble.clear()
        assert await ask(port, "/readyz") == (200, WAITING)


async def test_what_a_watch_says_is_a_sign_of_its_life_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "DEAD_AFTER_SECONDS", 4 * SHORT_SECONDS)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(8):
            await response.write(b"{}\n")
            await asyncio.sleep(SHORT_SECONDS)
        return response

    app = web.Application()
    app.router.add_get("/apis/virtfleet.io/v1alpha1/vmnodes", stream)
    runner, port = web.AppRunner(app), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    activity = WatchActivity(lambda _: None)
    async with aiohttp.ClientSession(trace_configs=[activity.trace()]) as session:
        await (await session.get(f"http://127.0.0.1:{port}/apis/virtfleet.io/v1alpha1/vmnodes")).read()
    said = activity.problem() or ""
    await runner.cleanup()
    assert "virtualmachines" in said
    assert "vmnodes" not in said
