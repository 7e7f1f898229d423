"""What a guest shows: which may be asked for it, and the end of what it wrote to its console."""

import asyncio
from typing import Final

from virtfleet_api.report import MachineReport, Phase
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.hypervisor.console_log import read_tail

_RUNNING: Final = frozenset({Phase.RUNNING, Phase.PAUSED, Phase.STOPPING})


def check_reachable(report: MachineReport, what: str) -> None:
    """Refuse to open a console or a display of a machine whose guest does not run: ConflictError."""
    if report.phase not in _RUNNING:
        raise ConflictError(f"The machine is {report.phase}; only a running guest has a {what}.")


async def read_log(around: Surroundings, uid: str, max_bytes: int) -> bytes:
    """Return the end of what a machine's guest wrote to its console."""
    return await asyncio.to_thread(read_tail, around.console_log(uid), max_bytes)
