"""A web server on loopback that behaves as badly as a test wants."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler


@dataclass
class BadWeb:
    """Serves files, and misbehaves at other paths. `asked` holds the Range header of each request, by path."""

    folder: Path
    url: str = ""
    asked: dict[str, list[str | None]] = field(default_factory=dict)
    interrupt_after: int | None = None
    """Cut the connection of a file after so many bytes, once."""
    release: asyncio.Event = field(default_factory=asyncio.Event)
    authorization: str | None = None
    """What the path /private wants to see."""
    shown: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and header Authorization of each request."""
    elsewhere: str = ""
    """Where the path /elsewhere redirects to."""

    async def file(self, request: web.Request) -> web.StreamResponse:
        self.asked.setdefault(request.path, []).append(request.headers.get("Range"))
        path = self.folder / request.match_info["name"]
        if not path.exists():
            raise web.HTTPNotFound
        if self.interrupt_after is None:
            return web.FileResponse(path)
        return await self._interrupted(request, path)

    async def _interrupted(self, request: web.Request, path: Path) -> web.StreamResponse:
        size, self.interrupt_after = self.interrupt_after, None
        found = path.stat()
        etag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'  # the form of aiohttp's own file responses
        response = web.StreamResponse(headers={"Content-Length": str(found.st_size), "ETag": etag})
        await response.prepare(request)
        await response.write(path.read_bytes()[:size])
        assert request.transport is not None
        request.transport.close()
        return response

    async def private(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != self.authorization:
            raise web.HTTPUnauthorized
        return await self.file(request)

    async def redirect_elsewhere(self, request: web.Request) -> web.StreamResponse:
        # Written as it is: the library's own redirects refuse to send what is no URL.
        return web.Response(status=302, headers={"Location": f"{self.elsewhere}/files/{request.match_info['name']}"})

    @web.middleware
    async def note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.shown.append((request.path, request.headers.get("Authorization")))
        return await handler(request)

    async def redirect(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"/redirect/{int(request.match_info['n']) + 1}")

    async def file_scheme(self, _: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("file:///etc/shadow")

    async def stall(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(b"x" * 1000)
        await self.release.wait()
        return response

    async def endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while not self.release.is_set():
            await response.write(b"\0" * 65536)
        return response

    async def huge(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(1 << 60)})
        await response.prepare(request)
        await self.release.wait()
        return response

    async def failing(self, _: web.Request) -> web.StreamResponse:
        raise web.HTTPServiceUnavailable


@asynccontextmanager
async def serve(folder: Path, tls: ssl.SSLContext | None = None) -> AsyncIterator[BadWeb]:
    """Serve a folder until the context ends."""
    bad = BadWeb(folder)
    app = web.Application(middlewares=[bad.note])
    app.router.add_get("/private/{name}", bad.private)
    app.router.add_get("/elsewhere/{name}", bad.redirect_elsewhere)
    app.router.add_get("/files/{name}", bad.file)
    app.router.add_get("/redirect/{n}", bad.redirect)
    for name in ("file_scheme", "stall", "endless", "huge", "failing"):
        app.router.add_get(f"/{name}", getattr(bad, name))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    bad.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield bad
    finally:
        bad.release.set()
        await runner.cleanup()
