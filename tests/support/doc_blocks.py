"""The code blocks of pages, and whether what they print is what a page says.

`<!-- tested -->` on the line above a console block has its commands run, one after the other with those of the page's
other such blocks. `<!-- also: COMMAND -->` is run without being shown.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PART = re.compile(
    r"<!-- also: (?P<also>.*?) -->|(?P<tested><!-- tested -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL
)
_DURATION = re.compile(r"(\d+(\.\d+)?(ms|s|m|h|d))+")
_QUANTITY = re.compile(r"\d+(\.\d+)?[KMGT]i(B[,;.]?)?")
_NODE = re.compile("node-[a-z]")
_HASH = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    language: str
    text: str
    tested: bool


@dataclass(frozen=True)
class Step:
    """A command of a page, and the lines that the page says it prints, none if it says nothing."""

    command: str
    printed: tuple[str, ...] = ()


def read_blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page."""
    return [
        Block(found["language"], found["text"], found["tested"] is not None)
        for found in _PART.finditer(page.read_text())
        if found["language"]
    ]


def read_steps(page: Path) -> list[Step]:
    """Return the commands of a page that are tested, in order."""
    steps: list[Step] = []
    for found in _PART.finditer(page.read_text()):
        if found["also"]:
            steps.append(Step(found["also"]))
        elif found["tested"]:
            steps.extend(_steps(found["text"]))
    return steps


def _steps(text: str) -> Iterator[Step]:
    if not text.startswith("$ "):
        yield from (Step(line) for line in text.splitlines() if line.strip())
        return
    for part in text.removeprefix("$ ").split("\n$ "):
        command, *printed = part.rstrip("\n").split("\n")
        yield Step(command, tuple(line for line in printed if line.strip()))


def shows(printed: str, line: str) -> bool:
    """Tell whether a line of a page is among what was printed: numbers, times and nodes may differ, `…` is anything."""
    wanted = re.compile(r"\s+".join(map(_pattern, line.split())))
    return any(wanted.fullmatch(" ".join(found.split())) for found in printed.splitlines())


def _pattern(word: str) -> str:
    if _DURATION.fullmatch(word):
        return _DURATION.pattern
    if _NODE.fullmatch(word):
        return _NODE.pattern
    if _QUANTITY.fullmatch(word):
        return _QUANTITY.pattern
    numbers = re.sub(r"\d+", "0", _HASH.sub("0", word))
    return re.escape(numbers).replace("0", "[0-9a-f]+").replace("…", ".*")
