"""Programs of the host that end by themselves: started without a shell, bounded in time and output."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

OUTPUT_BYTES: Final = 8 << 20
"""A list of 10,000 ports has 1 MiB."""


class ProgramError(Exception):
    """A program failed; the text says how."""


class ProgramMissingError(ProgramError):
    """There is no such program on this host."""


class Programs:
    """Starts them."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        """Take what each is started by, such as a program that enters another network namespace."""
        self._prefix = tuple(prefix)

    async def run(self, *words: str, given: str = "", seconds: float = 15.0) -> str:
        """Return what a program printed; ProgramError when it fails, prints without end, or takes too long."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._prefix,
                *words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError:
            raise ProgramMissingError(f"{words[0]} is not installed") from None
        except OSError as error:
            raise ProgramError(f"{words[0]} cannot be started: {error.strerror}") from error
        try:
            async with asyncio.timeout(seconds):
                printed, said = await process.communicate(given.encode())
        except TimeoutError:
            raise ProgramError(f"{words[0]} did not end within {seconds:.0f} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                if process.returncode is None:
                    process.kill()
        if process.returncode:
            raise ProgramError(f"{words[0]} failed: {' '.join(said.decode(errors='replace').split())[:300]}")
        if len(printed) > OUTPUT_BYTES:
            raise ProgramError(f"{words[0]} printed more than {OUTPUT_BYTES} bytes")
        return printed.decode(errors="replace")
