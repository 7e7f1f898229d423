"""Which host side of a card libvirt has forgotten."""

import pytest

from virtfleet_node.core.leaked_cards import LeakedCard, find_leaked_card, may_be_leaked_card, parse_children

REFUSAL = "internal error: unable to execute QEMU command 'netdev_add': Duplicate ID 'hostua-nic-a'"


@pytest.mark.parametrize(
    ("known", "devices", "found"),
    [
        (set(), set(), LeakedCard(netdev="hostua-nic-a")),
        (set(), {"ua-nic-a"}, LeakedCard(device="ua-nic-a")),
        ({"ua-nic-a"}, {"ua-nic-a"}, LeakedCard()),
        ({"ua-nic-a"}, set(), LeakedCard()),
        ({"ua-nic-b"}, {"ua-nic-b"}, LeakedCard(netdev="hostua-nic-a")),
    ],
)
def test_a_host_side_goes_when_neither_libvirt_nor_a_device_has_it(
    known: set[str], devices: set[str], found: LeakedCard
) -> None:
    assert find_leaked_card("ua-nic-a", known, devices) == found


def test_only_the_refusal_of_this_card_is_a_reason_to_look() -> None:
    assert may_be_leaked_card(REFUSAL, "ua-nic-a")
    assert not may_be_leaked_card(REFUSAL, "ua-nic-b")
    assert not may_be_leaked_card(REFUSAL, "")
    assert not may_be_leaked_card("Network not found", "ua-nic-a")


def test_an_answer_is_read_or_refused() -> None:
    assert parse_children('{"return": [{"name": "ua-nic-a", "type": "child<virtio-net-pci>"}]}') == {"ua-nic-a"}
    with pytest.raises(ValueError, match="validation error"):
        parse_children('{"error": {"class": "GenericError"}}')
