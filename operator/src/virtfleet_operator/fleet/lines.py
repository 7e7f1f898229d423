"""Lines out of a stream that a hostile peer may write: no line is longer than a bound, whatever the chunks are."""

from collections.abc import AsyncIterable, AsyncIterator

from virtfleet_operator.fleet.errors import NodeProtocolError


async def read_lines(chunks: AsyncIterable[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    """Yield the lines without their end; raise NodeProtocolError at one longer than the limit."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            _check(size + len(line), limit_bytes)
            yield b"".join((*parts, line))
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        _check(size, limit_bytes)


def _check(size: int, limit_bytes: int) -> None:
    if size > limit_bytes:
        raise NodeProtocolError(f"A line of the watch stream is longer than {limit_bytes} bytes.")
