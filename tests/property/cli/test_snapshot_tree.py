"""The tree of snapshots, whatever parents and words there are."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_cli.snapshot_tree import lay_out, render_snapshots

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = [f"s{number}" for number in range(8)]


@st.composite
def snapshots(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Snapshots whose parents may be any of them, themselves, missing, or none."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    parents = st.none() | st.sampled_from([*NAMES, "gone"])
    words = st.text(max_size=8)
    return [
        {
            "metadata": {"name": name, "creationTimestamp": f"2026-03-01T1{draw(st.integers(0, 2))}:00:00Z"},
            "spec": {"virtualMachine": draw(st.sampled_from(["a", "b"]))},
            "status": {
                "parent": draw(parents),
                "phase": draw(words),
                "progress": draw(words),
                "size": draw(words),
                "indications": draw(st.lists(words, max_size=2)),
                "conditions": [{"type": "Ready", "status": "False", "message": draw(words)}],
            },
        }
        for name in names
    ]


def ancestors(name: str, parents: dict[str, str | None]) -> list[str]:
    """Return the parents that are there, the nearest first, until there is none or one comes again."""
    found: list[str] = []
    while (parent := parents.get(name)) in parents and parent not in found:
        assert parent is not None
        found.append(parent)
        name = parent
    return found


@given(snapshots())
def test_each_snapshot_is_there_once_and_below_its_parent(objects: list[dict[str, Any]]) -> None:
    laid = lay_out(objects)
    order = [snapshot["metadata"]["name"] for snapshot, _ in laid]
    depths = {snapshot["metadata"]["name"]: len(branch) // 2 for snapshot, branch in laid}
    assert sorted(order) == sorted(one["metadata"]["name"] for one in objects)
    parents = {one["metadata"]["name"]: one["status"]["parent"] for one in objects}
    for name in order:
        above = ancestors(name, parents)
        ring = any(one in ancestors(one, parents) for one in [name, *above])
        if not ring:
            assert depths[name] == len(above)
        if depths[name]:
            assert order.index(parents[name] or "") < order.index(name)
            between = order[order.index(parents[name] or "") + 1 : order.index(name)]
            assert all(depths[other] >= depths[name] for other in between), "nothing of another branch lies between"


@given(snapshots())
def test_whatever_is_said_stays_on_its_line(objects: list[dict[str, Any]]) -> None:
    lines = render_snapshots(objects, NOW).split("\n")
    assert len(lines) == len(objects) + 1
    assert all(line.isprintable() for line in lines)
