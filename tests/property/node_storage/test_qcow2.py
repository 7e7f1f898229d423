"""The header parser against bytes of any kind: it answers or refuses, and nothing else."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfleet_node.core.qcow2 import HEADER_BYTES, MAGIC, Header, UnsafeImageError, check_standalone, parse_header


@given(st.binary(max_size=4096))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for start in (data, MAGIC + data, MAGIC + b"\0\0\0\3" + data):
        with contextlib.suppress(UnsafeImageError):
            assert isinstance(parse_header(start[:HEADER_BYTES]), Header)


@given(
    size=st.integers(1, 64 << 40),
    bits=st.integers(9, 21),
    backing=st.binary(min_size=1, max_size=1023),
)
def test_what_names_a_backing_file_never_stands_alone(size: int, bits: int, backing: bytes) -> None:
    head = MAGIC + struct.pack(">IQIIQIIQQIIQ", 3, 112, len(backing), bits, size, 0, 1, 0, 0, 1, 0, 0)
    head += struct.pack(">QQQII", 0, 0, 0, 4, 104) + bytes(8) + backing
    header = parse_header(head)
    assert header.virtual_size_bytes == size
    assert header.backing_file == backing.decode("utf-8", "replace")
    with pytest.raises(UnsafeImageError, match="backing"):
        check_standalone(header)
