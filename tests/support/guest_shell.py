"""Commands in a guest, by its serial console."""

import itertools
import re

from machine_rig import Rig
from virtfleet_api.machine import Machine

_NUMBERS = itertools.count(1)
_PROMPT = re.compile(rb"/ # (\x1b\[6n)?\Z")


async def begin(rig: Rig, machine: Machine, command: str) -> str:
    """Type a command once the shell asks, and return the word that its output will follow."""
    mark = next(_NUMBERS)
    log = rig.state / "machines" / machine.uid / "console.log"
    # What is typed before the shell asks is lost: it empties its input when it begins to edit a line.
    await rig.reports.until(lambda: log.exists() and _PROMPT.search(log.read_bytes()), 60, "the prompt")
    await rig.type(machine, f'x=$({command}); echo GAVE$((0)){mark} "<$x>";')
    return f"GAVE0{mark}"


async def finish(rig: Rig, machine: Machine, word: str, seconds: float = 90) -> str:
    """Wait until the command has ended, and return what it printed."""
    log = rig.state / "machines" / machine.uid / "console.log"
    found: list[str] = []

    def ended() -> bool:
        found[:] = re.findall(rf"{word} <([^>]*)>", log.read_text(errors="replace"))
        return bool(found)

    await rig.reports.until(ended, seconds, "the command")
    return found[-1].strip()


async def run(rig: Rig, machine: Machine, command: str, seconds: float = 90) -> str:
    """Run a command in the guest and return what it printed."""
    return await finish(rig, machine, await begin(rig, machine, command), seconds)
