"""Lines of a stream, whatever the chunks are, and never longer than the bound."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfleet_operator.fleet.errors import NodeProtocolError
from virtfleet_operator.fleet.lines import read_lines


async def chunks(content: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    edges = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        yield content[start:end]


LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" ")), max_size=8)


@given(LINES, st.lists(st.integers(min_value=0, max_value=400), max_size=12))
async def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], cuts: list[int]) -> None:
    content = b"".join(line + b"\n" for line in lines)
    assert [line async for line in read_lines(chunks(content, cuts), 40)] == lines


@given(st.integers(min_value=11, max_value=300), st.lists(st.integers(min_value=0, max_value=400), max_size=12))
async def test_a_longer_line_is_refused_whether_it_ends_or_not(size: int, cuts: list[int]) -> None:
    for content in (b"x" * size, b"ok\n" + b"x" * size + b"\n"):
        with pytest.raises(NodeProtocolError, match="longer than 10 bytes"):
            [line async for line in read_lines(chunks(content, cuts), 10)]
