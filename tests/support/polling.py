"""Waiting for a condition with a deadline, instead of for a time."""

import asyncio
from collections.abc import Callable

STEP_SECONDS = 0.01


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until the condition holds; fail when it does not within the time."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(STEP_SECONDS)
