"""Layers of disks: what is needed stays, what is not goes, whatever the tree."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.image import ImageFormat
from virtfleet_node.core.layers import REMOVED, Layer, as_attached, build_name, chain, parse_name, tips, unneeded
from virtfleet_node.core.observed import AttachedDisk
from virtfleet_node.core.stored import StoredDisk

POOL = Path("/pool/disks")


@st.composite
def trees(draw: st.DrawFn) -> tuple[Layer, ...]:
    """Return layers of up to three machines, each above an earlier one or on nothing."""
    layers: list[Layer] = []
    numbers: dict[str, int] = {}
    for _ in range(draw(st.integers(1, 14))):
        machine = draw(st.sampled_from("abc"))
        number = numbers.get(machine, 0)
        numbers[machine] = number + draw(st.integers(1, 3))
        below = draw(st.none() | st.sampled_from(layers)) if layers else None
        path = POOL / machine / build_name("root", number)
        layers.append(Layer("default", machine, "root", number, path, below=below.path if below else None))
    return tuple(draw(st.permutations(layers)))


@given(trees(), st.data())
def test_what_is_needed_stays_and_nothing_else(layers: tuple[Layer, ...], data: st.DataObject) -> None:
    named = data.draw(st.sets(st.sampled_from([layer.path for layer in layers])))
    removed = data.draw(st.dictionaries(st.sampled_from([layer.key for layer in layers]), st.integers(0, 20)))
    by_path = {layer.path: layer for layer in layers}
    gone = unneeded(layers, named, removed)
    left = [layer for layer in layers if layer not in gone]
    assert not named & {layer.path for layer in gone}
    assert set(tips(layers, removed).values()) <= set(left)
    for layer in left:
        assert {one.path for one in chain(layer, by_path)} <= {one.path for one in left}, "its chain is whole"
    assert unneeded(left, named, removed) == ()
    for at, layer in enumerate(gone):
        assert layer.below not in {earlier.path for earlier in gone[:at]}, "what lies above goes first"


@given(trees())
def test_the_disk_is_the_highest_layer_until_it_is_removed(layers: tuple[Layer, ...]) -> None:
    for key, tip in tips(layers).items():
        assert tip.number == max(layer.number for layer in layers if layer.key == key)
        assert key not in tips(layers, {key: tip.number})
        assert tips(layers, {key: tip.number - 1})[key] == tip, "made under the same name since"


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True), st.integers(0, 999_999_999))
def test_a_name_says_which_layer_it_is(disk: str, number: int) -> None:
    assert parse_name(build_name(disk, number)) == (disk, number)
    assert parse_name(build_name(disk, number, REMOVED), REMOVED) == (disk, number)
    assert parse_name(build_name(disk, number, REMOVED)) is None


def test_other_names_are_no_layers() -> None:
    for name in ("root.qcow2.partial", "root.0.qcow2", "root.01.qcow2", "Root.qcow2", "a.b.qcow2", "disk", ".qcow2"):
        assert parse_name(name) is None


def test_a_running_guests_disk_is_the_layer_that_it_uses() -> None:
    files = [POOL / "a" / build_name("root", number) for number in (2, 1, 0)]
    disk = StoredDisk("default", "root", files[0], ImageFormat.QCOW2, 1, layers=tuple(files[1:]))
    (seen,) = as_attached([disk], [AttachedDisk(file=str(files[1]), target="vda")])
    assert (seen.path, seen.layers) == (files[1], (files[2],))
    assert as_attached([disk], [AttachedDisk(file=str(files[0]), target="vda")]) == (disk,)
    assert as_attached([disk], [AttachedDisk(file="/elsewhere", target="vda")]) == (disk,)
