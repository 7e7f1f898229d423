"""Uploading an image: a file in pieces, each of which goes on where the last one arrived, and a checksum at the end.

How much has arrived is asked for after every failure, so an upload survives operators, API servers and itself.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from virtfleet_api.image import PieceQuery, UploadState
from virtfleet_api.vm_image import ImagePhase
from virtfleet_cli.cluster import Cluster
from virtfleet_cli.errors import CliError, UnavailableError

PATIENCE_SECONDS: Final = 60.0
"""How long to go on without any progress: a new leader is elected and serves within half a minute."""

RETRY_SECONDS: Final = 1.0
CHECK_SECONDS: Final = 0.5
"""How often to look whether the node has checked the file."""

PIECE_SECONDS: Final = 5.0
"""How long a piece shall take: far below the minute after which an API server ends a request."""

_LEAST_BYTES, _FIRST_BYTES, _MOST_BYTES = 256 << 10, 4 << 20, 32 << 20

T = TypeVar("T")

Show = Callable[[int], None]
"""Called with the bytes that have arrived."""


async def prepare_image(cluster: Cluster, name: str, spec: dict[str, Any]) -> bool:
    """Make the VMImage unless it is there, and tell whether it was made; CliError when it takes no such file."""
    image = await cluster.find_image(name)
    if image is None:
        await cluster.create_image(name, {"source": {"upload": {}}, **spec})
        return True
    found = image["spec"]
    if "upload" not in found.get("source", {}):
        raise CliError(f"VMImage {name} has a source of its own; choose another name.")
    for field, wanted in spec.items():
        if found.get(field) != wanted:
            raise CliError(f"VMImage {name} has {field} {found.get(field)}, not {wanted}; choose another name.")
    if image.get("status", {}).get("phase") == ImagePhase.READY:
        raise CliError(f"VMImage {name} has its content already; upload another file to another VMImage.")
    return False


class Upload:
    """One file on its way."""

    def __init__(self, cluster: Cluster, name: str, path: Path, show: Show) -> None:
        self._cluster = cluster
        self._name = name
        self._path = path
        self._show = show
        self._size = path.stat().st_size
        self._piece_bytes = _FIRST_BYTES

    async def run(self) -> UploadState:
        """Send the file and wait until the node has checked it; CliError says why it is no image."""
        if not self._size:
            raise CliError(f"{self._path} is empty.")
        state = await patiently(self._ask)
        resumed = 0 < state.received_bytes <= self._size
        final = await self._send(state.received_bytes if resumed else 0)
        if final.reason == "ChecksumMismatch" and resumed:
            final = await self._send(0)  # what was there before is of another file
        if final.phase is not ImagePhase.READY:
            raise CliError(f"The file is refused: {final.message}")
        return final

    async def _send(self, offset: int) -> UploadState:
        digest, hashed = hashlib.sha256(), 0
        with self._path.open("rb") as file:
            while offset < self._size:
                offset = await patiently(partial(self._send_piece, file, offset))
                self._show(offset)
                await asyncio.to_thread(_hash, digest, file, hashed, offset)
                hashed = max(hashed, offset)
            await asyncio.to_thread(_hash, digest, file, hashed, self._size)
        await patiently(partial(self._finish, digest.hexdigest()))
        return await self._checked()

    async def _finish(self, sha256: str) -> None:
        """Say that all is there; an answer that was lost is as good as one that came."""
        end = PieceQuery(offset=self._size, size=self._size, sha256=sha256)
        try:
            await self._cluster.send_piece(self._name, end, b"")
        except UnavailableError:
            raise
        except CliError:
            state = await self._ask()
            if state.phase not in {ImagePhase.IMPORTING, ImagePhase.READY} or state.received_bytes != self._size:
                raise

    async def _send_piece(self, file: BinaryIO, offset: int) -> int:
        """Send what follows the offset and return how much is there; a piece that arrives in part is a step, too."""
        file.seek(offset)
        data = await asyncio.to_thread(file.read, self._piece_bytes)
        started = time.monotonic()
        try:
            state = await self._cluster.send_piece(self._name, PieceQuery(offset=offset, size=self._size), data)
        except CliError:
            self._piece_bytes = max(_LEAST_BYTES, self._piece_bytes // 4)
            there = (await self._ask()).received_bytes
            if there == offset or there > self._size:
                raise
            return there
        fitting = len(data) * PIECE_SECONDS / max(time.monotonic() - started, 0.01)
        self._piece_bytes = int(min(max(fitting, _LEAST_BYTES), _MOST_BYTES, 2 * self._piece_bytes))
        if not offset < state.received_bytes <= self._size:
            raise UnavailableError(f"The node says that {state.received_bytes} bytes are there, which cannot be.")
        return state.received_bytes

    async def _checked(self) -> UploadState:
        while True:
            state = await patiently(self._ask)
            if state.phase in {ImagePhase.READY, ImagePhase.FAILED}:
                return state
            await asyncio.sleep(CHECK_SECONDS)

    async def _ask(self) -> UploadState:
        return await self._cluster.upload_state(self._name)


async def patiently(act: Callable[[], Awaitable[T]]) -> T:
    """Act, and act again while nobody answers, for PATIENCE_SECONDS; then UnavailableError."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await act()
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(RETRY_SECONDS)


def _hash(digest: "hashlib._Hash", file: BinaryIO, start: int, end: int) -> None:
    """Feed a part of the file to the digest; it was read a moment ago, or is skipped because it had arrived before."""
    file.seek(start)
    while start < end and (chunk := file.read(min(1 << 20, end - start))):
        digest.update(chunk)
        start += len(chunk)
