"""libvirt's calls block; they run in a bounded number of threads, and nobody waits for one longer than its bound."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import libvirt

from virtfleet_node.core.errors import UnavailableError
from virtfleet_node.hypervisor.errors import convert

T = TypeVar("T")

CALL_SECONDS: Final = 30.0
"""The slowest call is the start of a guest: 0.4 s alone, some seconds when many start at once on a busy host."""

AGENT_SECONDS: Final = 5
"""A guest agent that does not answer in this time is taken for absent."""

_THREADS: Final = 8
"""As many calls as libvirtd works on for one client at a time (max_client_requests is 5, plus those queued)."""


class Calls:
    """A bounded set of threads for blocking calls."""

    def __init__(self, threads: int = _THREADS, name: str = "libvirt") -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, call: Callable[[], T], seconds: float = CALL_SECONDS) -> T:
        """Return what the call returns. Raises NodeError for libvirt's errors, UnavailableError when time is up."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except libvirt.libvirtError as error:
            raise convert(error) from error
        except TimeoutError:
            raise UnavailableError(f"libvirtd did not answer within {seconds:.0f} s") from None

    def close(self) -> None:
        """Take no more calls; those that hang are left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)
