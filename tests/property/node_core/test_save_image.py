"""The head of a save image: another description, and everything else as it was."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfleet_node.core.save_image import (
    ALIGNMENT,
    FIXED_BYTES,
    build_head,
    head_bytes,
    parse_head,
    read_compression,
    with_compression,
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)
cookies = st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"x"))


def image(description: str, cookie: bytes, padding: int, running: int, compressed: int) -> bytes:
    """Return a head as libvirt writes it (virQEMUSaveDataWrite)."""
    text = description.encode() + b"\0"
    data = text + (cookie + b"\0" if cookie else b"") + bytes(padding)
    cookie_at = len(text) if cookie else 0
    return struct.pack("<16s5I56s", b"LibvirtQemudSave", 2, len(data), running, compressed, cookie_at, b"") + data


heads = st.builds(image, texts, cookies, st.integers(0, 300), st.integers(0, 3), st.sampled_from([0, 1, 2, 3]))


@given(heads, texts)
def test_only_the_description_changes(head: bytes, description: str) -> None:
    before = parse_head(head)
    made = build_head(before, description)
    after = parse_head(made)
    assert after.description == description
    assert (after.cookie, after.was_running, after.compressed) == (before.cookie, before.was_running, before.compressed)
    assert head_bytes(made[:FIXED_BYTES]) == len(made) == after.head_bytes
    longer = len(made) - len(head)
    assert longer >= 0
    assert longer % ALIGNMENT == 0
    assert longer == 0 or build_would_not_fit(head, description)


def build_would_not_fit(head: bytes, description: str) -> bool:
    cookie = parse_head(head).cookie
    return FIXED_BYTES + len(description.encode()) + 1 + (len(cookie) + 1 if cookie else 0) > len(head)


@given(heads, st.data())
def test_a_head_that_is_cut_off_or_changed_is_refused(head: bytes, data: st.DataObject) -> None:
    with pytest.raises(ValueError, match=r"it is too short|it ends within its description"):
        parse_head(head[: data.draw(st.integers(0, len(head) - 1))])
    with pytest.raises(ValueError, match=r"none of libvirt's, or was never completed"):
        head_bytes(b"LibvirtQemudPart" + head[16:FIXED_BYTES])
    with pytest.raises(ValueError, match="its version is 3"):
        head_bytes(head[:16] + b"\3" + head[17:FIXED_BYTES])


@given(st.binary(min_size=FIXED_BYTES, max_size=FIXED_BYTES))
def test_anything_else_is_refused(fixed: bytes) -> None:
    with pytest.raises(ValueError, match=r"none of libvirt's"):
        head_bytes(fixed)


@given(heads, st.integers(0, 4))
def test_only_the_compression_changes(head: bytes, number: int) -> None:
    before, fixed = parse_head(head), head[:FIXED_BYTES]
    changed = with_compression(fixed, number)
    assert read_compression(changed) == number
    assert with_compression(changed, read_compression(fixed)) == fixed
    assert parse_head(changed + head[FIXED_BYTES:]) == replace(before, compressed=number)
