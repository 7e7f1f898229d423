"""The console's log, written by virtlogd, which bounds its size and keeps one older part beside it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def read_tail(path: Path, max_bytes: int) -> bytes:
    """Return the end of the log, from its older part too when the newer is short. Blocks."""
    newer = _read_end(path, max_bytes)
    older = _read_end(path.with_name(path.name + ".0"), max_bytes - len(newer)) if len(newer) < max_bytes else b""
    return older + newer


def _read_end(path: Path, max_bytes: int) -> bytes:
    with suppress(FileNotFoundError), os.fdopen(os.open(path, _FLAGS), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - max_bytes))
        return file.read(max_bytes)
    return b""
