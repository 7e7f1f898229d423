"""The table of ports."""

import pytest

from virtfleet_api.node_api import InterfaceTraffic
from virtfleet_cli.ports import Machine, amount, render_ports

WEB = {
    "metadata": {"name": "web-1"},
    "spec": {"networks": [{"name": "eth0", "switch": "tenant"}, {"name": "eth1", "user": {}}]},
    "status": {
        "interfaces": [
            {
                "name": "eth0",
                "mac": "52:54:00:00:00:01",
                "ipAddresses": ["10.1.0.7", "fe80::1"],
                "switch": "tenant",
                "state": "up",
            }
        ]
    },
}


def test_a_machine_has_a_row_for_each_card_it_shall_have() -> None:
    counters = InterfaceTraffic(
        name="eth0", mac="52:54:00:00:00:01", received_bytes=1536, sent_bytes=12, received_drops=3
    )
    head, first, second = (line.split() for line in render_ports([Machine(WEB, (counters,))]).splitlines())
    assert dict(zip(head, first, strict=True)) == {
        "MACHINE": "web-1",
        "INTERFACE": "eth0",
        "SWITCH": "tenant",
        "MAC": "52:54:00:00:00:01",
        "ADDRESSES": "10.1.0.7,fe80::1",
        "STATE": "up",
        "RECEIVED": "1.5KiB",
        "SENT": "12B",
        "DROPPED": "3",
    }
    assert second == ["web-1", "eth1", "user", "-", "-", "-", "-", "-", "-"]


def test_what_a_guest_says_reaches_no_terminal_as_a_control_sequence() -> None:
    hostile = {**WEB, "status": {"interfaces": [{"name": "eth0", "ipAddresses": ["\x1b[2J"]}]}}
    assert "\x1b" not in render_ports([Machine(hostile)])


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1.5KiB"), (10 << 20, "10MiB"), (2**62, "4096PiB")],
)
def test_amounts_are_read_by_people(count: int, text: str) -> None:
    assert amount(count) == text
