"""Sets of the host's CPUs or NUMA cells as the kernel and libvirt write them, such as "0-3,8"."""

from collections.abc import Iterable, Iterator


def parse_cpus(text: str) -> frozenset[int]:
    """Return the numbers of a list such as "0-3,8"; none of an empty one. Raises ValueError."""
    return frozenset(number for part in text.strip().split(",") if part for number in _range(part))


def format_cpus(numbers: Iterable[int]) -> str:
    """Return the shortest list of these numbers."""
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in _runs(sorted(set(numbers))))


def _range(part: str) -> range:
    first, dash, last = part.partition("-")
    return range(int(first), int(last if dash else first) + 1)


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of each run without a gap."""
    start = 0
    for index, number in enumerate(numbers):
        if index + 1 == len(numbers) or numbers[index + 1] != number + 1:
            yield numbers[start], number
            start = index + 1
