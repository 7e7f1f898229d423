"""Download a file over http(s) into a partial file: streamed, bounded, resumable, and checked when it is complete.

Beside `<name>.partial` lies `<name>.partial.json` with the validator (ETag or Last-Modified) that lets a later attempt,
also of another daemon process, go on where this one stopped. The server and all it says are hostile.
"""

import asyncio
import hashlib
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp

from virtfleet_node.storage.failures import ImportFailedError
from virtfleet_node.storage.files import PARTIAL, open_partial, partial_size, read_small, write_sparse, write_whole
from virtfleet_node.storage.origin import Origin
from virtfleet_node.storage.resolver import GuardedResolver, is_own

STALL_SECONDS: Final = 30.0
"""A server that sends nothing for so long is given up; the next attempt goes on from there."""

CHUNK_BYTES: Final = 1 << 20
_VALIDATOR_CHARACTERS: Final = 256
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_OK, _PARTIAL_CONTENT, _UNAUTHORIZED, _FORBIDDEN, _RANGE_NOT_SATISFIABLE = 200, 206, 401, 403, 416


@dataclass(frozen=True)
class Limits:
    """What a download may take."""

    max_bytes: int
    stall_seconds: float = STALL_SECONDS


Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes expected, if known."""


@dataclass(frozen=True)
class Fetched:
    """A file that is complete."""

    path: Path
    """Still under its partial name."""
    sha256: str


class Fetch:
    """One download."""

    def __init__(self, origin: Origin, target: Path, limits: Limits, progress: Progress) -> None:
        self._origin = origin
        self._partial = target.with_name(target.name + PARTIAL)
        self._sidecar = target.with_name(target.name + PARTIAL + ".json")
        self._limits = limits
        self._progress = progress

    async def run(self) -> Fetched:
        """Download what is missing and return the partial file, complete and with the right checksum.

        Raises:
            ImportFailedError: with what went wrong. A final failure leaves no file behind.
        """
        try:
            await self._transfer()
            found = await asyncio.to_thread(sha256_of, self._partial)
            self._origin.check(found)
        except ImportFailedError as failure:
            if failure.final:
                self.discard()
            raise
        return Fetched(self._partial, found)

    def discard(self) -> None:
        """Remove what was downloaded."""
        for path in (self._partial, self._sidecar):
            path.unlink(missing_ok=True)

    async def _transfer(self) -> None:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._limits.stall_seconds, sock_read=self._limits.stall_seconds
        )
        try:
            async with aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=GuardedResolver()),
                timeout=timeout,
                auto_decompress=False,
                trust_env=False,
            ) as session:
                await self._follow(session)
        except TimeoutError:
            raise ImportFailedError(
                "Stalled", f"The server sent nothing for {self._limits.stall_seconds:.0f} s."
            ) from None
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise ImportFailedError("TLSError", f"The server's certificate is not accepted: {error!s:.200}") from None
        except aiohttp.ClientPayloadError:
            raise ImportFailedError(
                "Truncated", "The server ended the connection before the file was complete."
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ImportFailedError("Unreachable", f"The download failed: {error!s:.200}") from None

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        """Ask for the file, following redirects by hand: few, and never from https to http."""
        origin, url = self._origin, self._origin.url
        headers, tls = self._range_headers(), origin.tls()
        for _ in range(origin.redirects + 1):
            asked = headers | origin.credentials_for(url)
            request = session.get(
                url, headers=asked, allow_redirects=False, ssl=tls, server_hostname=origin.server_name
            )
            async with request as response:
                if response.status not in _REDIRECTS:
                    await self._receive(response)
                    return
                url = _redirect(url, response.headers.get("Location", ""))
        raise ImportFailedError("TooManyRedirects", f"The server redirects more than {origin.redirects} times.")

    def _range_headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        validator = self._validator()
        if (size := partial_size(self._partial)) and validator:
            headers |= {"Range": f"bytes={size}-", "If-Range": validator}
        return headers

    async def _receive(self, response: aiohttp.ClientResponse) -> None:
        if response.status == _RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range") == f"bytes */{partial_size(self._partial)}":
                return  # it was complete already: a daemon died between the last byte and publishing
            self.discard()
            raise ImportFailedError("Changed", "The file changed while it was downloaded; starting again.")
        if response.status in {_UNAUTHORIZED, _FORBIDDEN}:
            raise ImportFailedError("Unauthorized", self._origin.explain_refusal(response.status))
        if response.status not in {_OK, _PARTIAL_CONTENT}:
            raise ImportFailedError("HTTPError", f"The server answers {response.status}; check the URL.")
        start = self._resumed_at(response) if response.status == _PARTIAL_CONTENT else 0
        expected = start + response.content_length if response.content_length is not None else None
        self._check_size(expected or 0)
        if not start:
            self._partial.unlink(missing_ok=True)  # before its validator is replaced: a crash must not pair the two
        self._remember_validator(response)
        await self._write(response, start, expected)

    def _resumed_at(self, response: aiohttp.ClientResponse) -> int:
        """Return where a partial answer goes on; servers that ignore If-Range are found out by their validator."""
        start = partial_size(self._partial)
        continues = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if not continues or _validator_of(response) != self._validator():
            self.discard()
            raise ImportFailedError("Changed", "The file changed while it was downloaded; starting again.")
        return start

    async def _write(self, response: aiohttp.ClientResponse, start: int, expected: int | None) -> None:
        size = start
        with open_partial(self._partial, append=bool(start)) as file:
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                size += len(chunk)
                self._check_size(size)
                await asyncio.to_thread(write_sparse, file, chunk)
                self._progress(size, expected)
        if expected is not None and size != expected:
            raise ImportFailedError("Truncated", f"The server sent {size} of {expected} bytes.")

    def _check_size(self, size: int) -> None:
        if size > self._limits.max_bytes:
            raise ImportFailedError(
                "TooLarge", f"The file has more than the {self._limits.max_bytes} bytes that the pool can take."
            )

    def _validator(self) -> str | None:
        try:
            kept = json.loads(read_small(self._sidecar) or b"null")
        except ValueError:
            return None
        same = isinstance(kept, dict) and kept.get("url") == self._origin.identity
        return str(kept["validator"]) if same and kept.get("validator") else None

    def _remember_validator(self, response: aiohttp.ClientResponse) -> None:
        kept = {"url": self._origin.identity, "validator": _validator_of(response)}
        write_whole(self._sidecar, json.dumps(kept).encode())


def _validator_of(response: aiohttp.ClientResponse) -> str:
    """Return what tells versions of the file apart, for If-Range: RFC 9110, 13.1.5 rules weak ETags out."""
    etag = response.headers.get("ETag", "")
    strong = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    return strong[:_VALIDATOR_CHARACTERS]


def _redirect(url: str, location: str) -> str:
    """Return where a redirect leads: never from https to http, nor to an address that means this host."""
    try:
        target = urljoin(url, location)
        old, new = urlsplit(url), urlsplit(target)
    except ValueError:
        raise ImportFailedError("HTTPError", f"The server redirects to {location[:200]!r}, which is no URL.") from None
    schemes = ("https",) if old.scheme == "https" else ("http", "https")
    if new.scheme not in schemes or (new.hostname != old.hostname and is_own(new.hostname or "")):
        raise ImportFailedError("HTTPError", f"The server redirects to {location[:200]!r}, which is not followed.")
    return target


def sha256_of(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
