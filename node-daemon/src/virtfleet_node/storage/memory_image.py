"""Compress memory images into the form that libvirt reads by itself: the same head, then what QEMU wrote, by gzip."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from virtfleet_node.core.errors import PoolFullError, UnavailableError
from virtfleet_node.core.save_image import FIXED_BYTES, GZIP, PLAIN, head_bytes, read_compression, with_compression
from virtfleet_node.storage.files import PARTIAL, open_partial, publish

_COMMAND: Final = ("nice", "-n", "19", "ionice", "-c", "3", "gzip", "-1", "-c")
"""Level 1 takes a third of the time of gzip's own, and leaves a few percent more."""

_MESSAGE_CHARACTERS: Final = 400


def is_plain(image: Path) -> bool:
    """Tell whether an image is whole and not compressed."""
    try:
        with image.open("rb") as file:
            return read_compression(file.read(FIXED_BYTES)) == PLAIN
    except (OSError, ValueError):
        return False


def remove_partial(image: Path) -> None:
    """Remove what there is of a compressed image that was not completed."""
    _partial(image).unlink(missing_ok=True)


async def compress(image: Path, most_bytes: int) -> None:
    """Put a compressed image in the place of an image, at once and durably; whoever reads the old one goes on with it.

    Raises:
        PoolFullError: it would have more bytes than it may.
        UnavailableError: it failed.
        ValueError: the image is none.
    """
    try:
        await _write(image, most_bytes)
        await asyncio.to_thread(publish, _partial(image), image)
    finally:
        remove_partial(image)


async def _write(image: Path, most_bytes: int) -> None:
    limits = ("setpriv", "--pdeathsig", "KILL", "--", "prlimit", f"--fsize={most_bytes}", "--")
    with image.open("rb") as source, open_partial(_partial(image)) as target:
        fixed = source.read(FIXED_BYTES)
        target.write(with_compression(fixed, GZIP) + source.read(head_bytes(fixed) - FIXED_BYTES))
        target.flush()
        os.lseek(source.fileno(), head_bytes(fixed), os.SEEK_SET)  # where the process goes on that inherits it
        process = await asyncio.create_subprocess_exec(
            *limits, *_COMMAND, stdin=source, stdout=target, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, said = await process.communicate()
        except BaseException:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
    if process.returncode == -signal.SIGXFSZ:
        raise PoolFullError("The pool has no room for a compressed memory image beside the plain one.")
    if process.returncode:
        raise UnavailableError(f"Compressing failed: {said.decode(errors='replace').strip()[:_MESSAGE_CHARACTERS]}")


def _partial(image: Path) -> Path:
    return image.with_name(image.name + PARTIAL)
