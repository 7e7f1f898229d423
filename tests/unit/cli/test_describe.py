"""The page about a machine: complete for a rich status, silent about what is absent, harmless for hostile text."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from virtfleet_cli.describe import age, clean, describe_machine

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

MACHINE: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop", "generation": 2, "creationTimestamp": "2026-03-01T10:00:00Z"},
    "spec": {
        "runStrategy": "Always",
        "disks": [
            {"name": "root", "source": {"image": {"name": "debian-12", "namespace": "images"}}, "pool": "default"},
            {"name": "data", "source": {"blank": {}}, "size": "5Gi", "pool": "default"},
        ],
        "networks": [{"name": "eth0", "user": {}, "model": "virtio"}],
    },
    "status": {
        "observedGeneration": 2,
        "printableStatus": "Running",
        "nodeName": "node-a",
        "machine": {
            "vcpus": {"current": 2, "max": 2},
            "memory": {"current": "1Gi"},
            "cpuModel": "host-model",
            "display": "vga",
        },
        "disks": [{"name": "root", "target": "vda", "capacity": "20Gi", "pool": "default"}],
        "interfaces": [{"name": "eth0", "mac": "52:54:00:00:00:01", "ipAddresses": ["10.0.2.15"]}],
        "guest": {"os": "Debian GNU/Linux 12", "hostname": "web"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Running", "message": "The guest runs."}],
    },
}

EVENTS = [
    {
        "type": "Normal",
        "reason": "Started",
        "message": "The guest was started.",
        "lastTimestamp": "2026-03-01T11:57:00Z",
        "metadata": {},
    }
]


def render(machine: dict[str, Any], events: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(describe_machine(machine, events, NOW))
    return out.getvalue()


def test_the_whole_page() -> None:
    lines = [" ".join(line.split()) for line in render(MACHINE, EVENTS).splitlines()]
    for expected in (
        "Name web",
        "Status Running",
        "Node node-a",
        "Ready True Running The guest runs.",
        "vCPUs 2",
        "Display vga",
        "root vda 20Gi default image images/debian-12",
        "data 5Gi default blank",
        "eth0 52:54:00:00:00:01 10.0.2.15 virtio",
        "Os Debian GNU/Linux 12",
        "3m Normal Started The guest was started.",
    ):
        assert expected in lines


def test_a_new_machine_has_no_empty_sections() -> None:
    page = render({"metadata": {"name": "new", "generation": 1}, "spec": {}}, [])
    assert "not reconciled yet" in page
    assert "has not been taken up yet" in page
    for title in ("Conditions", "Disks", "Interfaces", "Guest", "Events"):
        assert title not in page


def test_nothing_of_a_guest_reaches_the_terminal_as_a_command() -> None:
    hostile = {**MACHINE, "status": {**MACHINE["status"], "guest": {"os": "\x1b]0;pwned\x07[bold red]x[/]\u202e"}}}
    page = render(hostile, [])
    assert "\x1b" not in page
    assert "\x07" not in page
    assert "\u202e" not in page
    assert "[bold red]x[/]" in page, "markup is text"


@pytest.mark.parametrize("char", ["\x00", "\x1b", "\x9b", "\u202e", "\n", "\ud800"])
def test_clean(char: str) -> None:
    assert clean(f"a{char}b") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(seconds=-5), "0s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(minutes=7), "7m"),
        (timedelta(hours=3), "3h"),
        (timedelta(days=12), "12d"),
    ],
)
def test_age(span: timedelta, text: str) -> None:
    assert age(NOW - span, NOW) == text
