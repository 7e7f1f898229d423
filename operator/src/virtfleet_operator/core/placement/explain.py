"""What a machine's author reads when no node can take it: every node counted, with exactly one reason."""

from collections.abc import Mapping
from typing import Final

from virtfleet_operator.core.verdict import plain

_MAX_REASONS: Final = 8  # what a person reads; taints and labels may make as many as there are nodes


def explain(total: int, refusals: Mapping[str, int]) -> str:
    """Say how many nodes refuse for which reason, the most frequent ones first."""
    if not total:
        return "there is no node: start a node daemon and let it enrol"
    ordered = sorted(refusals.items(), key=lambda item: (-item[1], item[0]))
    shown, others = ordered[:_MAX_REASONS], sum(count for _, count in ordered[_MAX_REASONS:])
    said = [f"{count} {plain(reason, 128)}" for reason, count in shown]
    if others:
        said.append(f"{others} for other reasons")
    return f"0/{total} nodes fit: {', '.join(said)}"
