"""The table of snapshots."""

from datetime import UTC, datetime
from typing import Any

from virtfleet_cli.snapshot_tree import lay_out, render_snapshots

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def snapshot(name: str, parent: str | None = None, machine: str = "web-1", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-03-01T11:00:00Z"},
        "spec": {"virtualMachine": machine},
        "status": {"phase": "Ready", "parent": parent, **status},
    }


BASE = snapshot(
    "base",
    size="1536Mi",
    pauseMilliseconds=0,
    creationTime="2026-03-01T11:57:00Z",
    indications=["Online", "Memory"],
    conditions=[{"type": "Ready", "status": "True", "message": "The snapshot can be restored."}],
)


def test_children_are_drawn_below_their_parents() -> None:
    shown = [snapshot("c", "b"), snapshot("d", "base"), snapshot("b", "base"), BASE, snapshot("other", machine="db")]
    rows = [line.split(maxsplit=2)[:2] for line in render_snapshots(shown, NOW).splitlines()[1:]]
    assert rows[:2] == [["db", "other"], ["web-1", "base"]]
    assert [branch + one["metadata"]["name"] for one, branch in lay_out(shown)] == [
        "other",
        "base",
        "├─b",
        "│ └─c",
        "└─d",
    ]


def test_a_row_says_all_about_a_snapshot() -> None:
    head, row = (line.split() for line in render_snapshots([BASE], NOW).splitlines())
    assert dict(zip(head, row, strict=True)) == {
        "MACHINE": "web-1",
        "SNAPSHOT": "base",
        "PHASE": "Ready",
        "SIZE": "1.5GiB",
        "PAUSE": "0ms",
        "AGE": "3m",
        "CAPTURED": "Online,Memory",
    }


def test_a_snapshot_that_is_not_there_yet_says_why() -> None:
    said = [{"type": "Ready", "status": "False", "message": "Node a does not answer."}]
    new = {key: value for key, value in snapshot("new").items() if key != "status"}
    coming = snapshot("next", phase="Capturing", progress="42%", conditions=said)
    head, first, second = render_snapshots([new, coming], NOW).splitlines()
    assert head.endswith("MESSAGE")
    assert first.split() == ["web-1", "new", "Pending", "-", "-", "60m", "-"]
    assert "Capturing 42%" in second
    assert second.endswith("Node a does not answer.")


def test_parents_that_are_gone_or_go_round_leave_no_snapshot_out() -> None:
    ring = [snapshot("a", "c"), snapshot("b", "a"), snapshot("c", "b"), snapshot("self", "self"), snapshot("e", "gone")]
    laid = [(one["metadata"]["name"], branch) for one, branch in lay_out(ring)]
    assert laid == [("e", ""), ("a", ""), ("b", "└─"), ("c", "  └─"), ("self", "")]


def test_a_long_line_of_snapshots_is_laid_out() -> None:
    line = [snapshot("s0"), *(snapshot(f"s{number}", f"s{number - 1}") for number in range(1, 3000))]
    assert [one["metadata"]["name"] for one, _ in lay_out(line)] == [f"s{number}" for number in range(3000)]


def test_nothing_of_a_status_reaches_the_terminal_as_a_command() -> None:
    said = [{"type": "Ready", "status": "False", "message": "\x1b]0;owned\x07\nweb-1   good   Ready"}]
    hostile = snapshot("\x1b[2J", phase="\x1b[31m", indications=["\r"], conditions=said)
    lines = render_snapshots([hostile], NOW).split("\n")
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
