"""qemu-img, run with limits on memory, CPU and time. What it reads may have been written by a stranger."""

import asyncio
import contextlib
import errno
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from virtfleet_node.core.errors import InvalidError, UnavailableError
from virtfleet_node.core.stored import ImageFiles

PROBE_SECONDS: Final = 20.0
"""Reading the metadata of an image takes milliseconds; a hostile one may try to take for ever."""

CONVERT_SECONDS: Final = 4 * 3600.0
"""Copying a disk of a terabyte at 100 MB/s takes three hours."""

_CLOSE_SECONDS: Final = 30.0
_CLOSE_POLL_SECONDS: Final = 0.05

_CHAIN_FILES: Final = 256
"""Files that are open at once: a chain has some dozens of layers, and `rebase` opens two."""

_PROBE_MEMORY_BYTES: Final = 1 << 30
_CONVERT_MEMORY_BYTES: Final = 4 << 30
_MESSAGE_BYTES: Final = 400
_OUTPUT_BYTES: Final = 4096
_PERCENT: Final = re.compile(rb"\(([0-9]{1,3}\.[0-9]{2})/100%\)")
_END_WITH_DAEMON: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""A copy that outlives a killed daemon would hold its source's lock and fill a file that nobody wants."""


async def check_image(path: Path, image_format: str) -> None:
    """Let qemu-img check an image's structure in the format that is given, not guessed; InvalidError if it fails."""
    await _probe("info", path, image_format)
    if image_format == "qcow2":
        await _probe("check", path, image_format)


async def create_overlay(path: Path, backing: Path, backing_format: str, size_bytes: int) -> None:
    """Make an empty qcow2 difference file on a backing file whose format is written into it."""
    source = ("-b", str(backing), "-F", backing_format)
    await _run(PROBE_SECONDS, "qemu-img", "create", "-q", "-f", "qcow2", *source, str(path), str(size_bytes))


async def create_blank(path: Path, size_bytes: int) -> None:
    """Make an empty qcow2 file that takes no space until it is written."""
    await _run(PROBE_SECONDS, "qemu-img", "create", "-q", "-f", "qcow2", str(path), str(size_bytes))


async def copy_image(source: Path, source_format: str, target: Path, most_bytes: int) -> None:
    """Copy an image into a new qcow2 file of its own; holes stay holes.

    What is compressed in the image is not in the copy, which may so be larger by far.

    Raises:
        OSError: EFBIG, the copy would have more bytes than it may.
    """
    files = ("-f", source_format, "-O", "qcow2", str(source), str(target))
    await _run(CONVERT_SECONDS, *_convert_limits(most_bytes), "qemu-img", "convert", *files)


async def is_in_use(path: Path) -> bool:
    """Tell whether another process holds the lock of a qcow2 file that is open for writing."""
    try:
        await _probe("info", path, "qcow2")
    except InvalidError as error:
        if "lock" in str(error):
            return True
        raise
    return False


async def copy_disk(
    source: Path, target: Path, backing: ImageFiles | None, progress: Callable[[float], None], most_bytes: int
) -> None:
    """Copy a qcow2 disk into a new qcow2 file; with `backing`, its image, only what differs from that.

    `progress` is told the percentage.

    Raises:
        OSError: EFBIG, the copy would have more bytes than it may.
    """
    limits = _convert_limits(most_bytes)
    base = ("-B", str(backing.path), "-F", backing.format) if backing else ()
    files = ("-f", "qcow2", "-O", "qcow2", *base, str(source), str(target))
    await _run(CONVERT_SECONDS, *_END_WITH_DAEMON, *limits, "qemu-img", "convert", "-p", *files, progress=progress)


async def rebase(path: Path, backing: ImageFiles, progress: Callable[[float], None], most_bytes: int) -> None:
    """Have a qcow2 file lie on another one, and take into it whatever differs; its content stays the same.

    `progress` is told the percentage.

    Raises:
        OSError: EFBIG, the file would have more bytes than it may.
    """
    limits = _convert_limits(most_bytes)
    files = ("-f", "qcow2", "-b", str(backing.path), "-F", str(backing.format), str(path))
    await _run(CONVERT_SECONDS, *_END_WITH_DAEMON, *limits, "qemu-img", "rebase", "-p", *files, progress=progress)


async def commit(upper: Path, lower: Path, bytes_per_second: int, progress: Callable[[float], None]) -> None:
    """Write what a qcow2 file holds into the one that it lies on; it stays as it is. Nobody else uses either.

    `progress` is told the percentage.

    Raises:
        InvalidError: somebody does.
        OSError: ENOSPC, the file system is full.
    """
    limits = ("nice", "-n", "19", "prlimit", f"--as={_CONVERT_MEMORY_BYTES}", f"--nofile={_CHAIN_FILES}", "--")
    files = ("-f", "qcow2", "-d", "-b", str(lower), str(upper))
    words = ("qemu-img", "commit", "-p", "-r", str(bytes_per_second), *files)
    await _run(CONVERT_SECONDS, *_END_WITH_DAEMON, *limits, *words, progress=progress)


async def set_backing(path: Path, backing: Path) -> None:
    """Have a qcow2 file lie on another one without a look at their content, which is for the caller to know."""
    await _run(PROBE_SECONDS, "qemu-img", "rebase", "-u", "-f", "qcow2", "-b", str(backing), "-F", "qcow2", str(path))


async def wait_unwritten(path: Path) -> None:
    """Wait until no process has a qcow2 file open for writing.

    Raises:
        UnavailableError: one still has after some seconds.
    """
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            while await is_in_use(path):  # noqa: ASYNC110 -- another process's lock tells nobody
                await asyncio.sleep(_CLOSE_POLL_SECONDS)
    except TimeoutError:
        raise UnavailableError(f"QEMU does not close {path.name}.") from None


def _convert_limits(most_bytes: int) -> tuple[str, ...]:
    return ("prlimit", f"--as={_CONVERT_MEMORY_BYTES}", f"--nofile={_CHAIN_FILES}", f"--fsize={most_bytes}", "--")


async def grow(path: Path, size_bytes: int) -> None:
    """Make a qcow2 file that no guest uses larger."""
    await _run(PROBE_SECONDS, "qemu-img", "resize", "-q", "-f", "qcow2", str(path), str(size_bytes))


async def _probe(command: str, path: Path, image_format: str) -> None:
    limits = ("prlimit", f"--as={_PROBE_MEMORY_BYTES}", f"--cpu={int(PROBE_SECONDS)}", "--nofile=64", "--fsize=0", "--")
    target = f"driver={image_format},file.driver=file,file.filename={_quoted(path)}"
    await _run(PROBE_SECONDS, *limits, "qemu-img", command, "--output=json", "--image-opts", target)


def _quoted(path: Path) -> str:
    """Return a path as a value of qemu's key=value options, in which a comma is written twice."""
    return str(path).replace(",", ",,")


async def _run(seconds: float, *command: str, progress: Callable[[float], None] | None = None) -> None:
    """Run a command.

    Raises:
        InvalidError: it failed; the message is the end of its complaint.
        UnavailableError: it took too long.
        OSError: ENOSPC, the file system is full; EFBIG, its file would be larger than it may.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE if progress else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            if progress:
                await _follow(process.stdout, progress)
            _, complaint = await process.communicate()
    except TimeoutError:
        raise UnavailableError(f"{_name(command)} took longer than {seconds:.0f} s.") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        text = complaint[-_MESSAGE_BYTES:].decode(errors="replace").strip()
        for number in (errno.ENOSPC, errno.EFBIG):
            if os.strerror(number) in text:
                raise OSError(number, os.strerror(number))
        if process.returncode == -signal.SIGXFSZ:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        raise InvalidError(f"{_name(command)} failed: {text or f'exit code {process.returncode}'}")


async def _follow(output: asyncio.StreamReader | None, progress: Callable[[float], None]) -> None:
    """Pass on the percentages that qemu-img prints, until it prints no more."""
    while output and (chunk := await output.read(_OUTPUT_BYTES)):
        if found := _PERCENT.findall(chunk):
            progress(float(found[-1]))


def _name(command: tuple[str, ...]) -> str:
    position = command.index("qemu-img")
    return " ".join(command[position : position + 2])
