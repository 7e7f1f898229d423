"""Which of QEMU's block nodes libvirt has forgotten, and which it has not."""

import json

import pytest

from virtfleet_node.core.block_nodes import (
    BlockDevice,
    BlockNode,
    Known,
    Leaks,
    find_leaks,
    may_be_leaked,
    parse_devices,
    parse_nodes,
)

LOCK = "internal error: unable to execute QEMU command 'blockdev-add': Failed to get \"write\" lock"
CLASH = (
    "internal error: unable to execute QEMU command 'blockdev-add': Duplicate nodes with node-name='libvirt-3-storage'"
)
NONE = Known(frozenset(), frozenset())


def pair(number: int, file: str, image: str = "") -> tuple[dict[str, object], ...]:
    """Return what QEMU tells of a disk's file, and of what is in it."""
    backing = {"backing_file": image} if image else {}
    return (
        {"node-name": f"libvirt-{number}-storage", "file": file, "drv": "file"},
        {"node-name": f"libvirt-{number}-format", "file": file, "drv": "qcow2", **backing},
    )


def nodes(*pairs: tuple[dict[str, object], ...]) -> tuple[BlockNode, ...]:
    return parse_nodes(json.dumps({"return": [node for both in pairs for node in both], "id": "libvirt-1"}))


def devices(**at: str) -> tuple[BlockDevice, ...]:
    told = [
        {"device": "", "qdev": f"/machine/peripheral/{alias.replace('_', '-')}/virtio-backend", "inserted": inserted}
        for alias, name in at.items()
        for inserted in [{"node-name": name, "file": "x"}]
    ]
    return parse_devices(json.dumps({"return": [*told, {"device": "", "qdev": "sata0-0-0", "locked": False}]}))


def test_nodes_that_nobody_uses_are_leaks_the_content_before_its_file() -> None:
    found = find_leaks(nodes(pair(1, "/root"), pair(9, "/logs")), devices(), NONE, "/logs", LOCK)
    assert found == Leaks(nodes=("libvirt-9-format", "libvirt-9-storage"))


def test_all_nodes_of_several_cut_off_attaches_are_leaks() -> None:
    found = find_leaks(nodes(pair(8, "/logs"), pair(9, "/logs")), devices(), NONE, "/logs", LOCK)
    assert {name[:9] for name in found.nodes} == {"libvirt-8", "libvirt-9"}


def test_a_guest_that_tells_of_very_many_nodes_costs_a_bounded_number_of_calls() -> None:
    many = nodes(*(pair(number, "/logs") for number in range(500)))
    assert len(find_leaks(many, devices(), NONE, "/logs", LOCK).nodes) == 64


def test_images_follow_what_lies_on_them_unless_a_disk_has_them() -> None:
    stack = nodes(pair(5, "/base"), pair(6, "/image", "/base"), pair(7, "/logs", "/image"), pair(2, "/other"))
    found = find_leaks(stack, devices(), NONE, "/logs", LOCK)
    assert [name for name in found.nodes if name.endswith("format")] == [f"libvirt-{n}-format" for n in (7, 6, 5)]
    kept = find_leaks(stack, devices(), Known({"/image"}, set()), "/logs", LOCK)
    assert kept.nodes == ("libvirt-7-format", "libvirt-7-storage")


def test_images_that_name_each_other_come_to_an_end() -> None:
    found = find_leaks(nodes(pair(1, "/a", "/b"), pair(2, "/b", "/a")), devices(), NONE, "/a", LOCK)
    assert len(found.nodes) == 4


def test_a_name_that_libvirt_would_give_again_is_a_leak_whatever_it_holds() -> None:
    found = find_leaks(nodes(pair(3, "/data"), pair(4, "/root")), devices(), NONE, "/logs", CLASH)
    assert found.nodes == ("libvirt-3-format", "libvirt-3-storage")


def test_a_device_that_libvirt_does_not_know_goes_before_its_nodes() -> None:
    found = find_leaks(nodes(pair(3, "/logs")), devices(ua_disk_logs="libvirt-3-format"), NONE, "/logs", LOCK)
    assert found == Leaks(devices=("ua-disk-logs",))


@pytest.mark.parametrize(
    "known",
    [Known({"/logs"}, set()), Known(set(), {"ua-disk-logs"}), Known({"/logs"}, {"ua-disk-logs"})],
    ids=["file", "device", "both"],
)
@pytest.mark.parametrize("message", [LOCK, CLASH])
def test_what_libvirt_knows_is_no_leak(known: Known, message: str) -> None:
    found = find_leaks(nodes(pair(3, "/logs")), devices(ua_disk_logs="libvirt-3-format"), known, "/logs", message)
    assert found == Leaks()


def test_what_is_not_named_as_libvirt_does_is_left_alone() -> None:
    foreign = ({"node-name": "mine", "file": "/logs"}, {"node-name": "#block123", "file": "/logs"})
    assert find_leaks(nodes(foreign), devices(), NONE, "/logs", LOCK) == Leaks()
    at_foreign_place = parse_devices(
        '{"return": [{"qdev": "/machine/unattached/device[3]", "inserted": {"node-name": "libvirt-3-format"}}]}'
    )
    assert find_leaks(nodes(pair(3, "/logs")), at_foreign_place, NONE, "/logs", LOCK) == Leaks()


@pytest.mark.parametrize(
    ("message", "may"),
    [
        (LOCK, True),
        (CLASH, True),
        ('Failed to get shared "write" lock', True),
        ("Could not open '/logs': Permission denied", False),
        ("Requested operation is not valid: domain is not running", False),
    ],
)
def test_only_some_refusals_are_a_reason_to_look(message: str, may: bool) -> None:  # noqa: FBT001
    assert may_be_leaked(message) is may


@pytest.mark.parametrize("text", ["", "{}", '{"error": {"desc": "no"}}', '{"return": [1]}', "[" * 9999])
def test_an_answer_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        parse_nodes(text)
    with pytest.raises(ValueError, match="validation error"):
        parse_devices(text)
