"""Whatever text comes, a quantity is either refused with a sentence or read to an integer that can be written back."""

import re
from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from virtfleet_api.quantity import Bytes, Frequency

SIZES = st.integers(1, 2**63 - 1).map(Bytes)
FREQUENCIES = st.integers(1, 10**15).map(Frequency)


@given(SIZES)
def test_a_size_survives_being_written(size: Bytes) -> None:
    assert Bytes.parse(str(size)) == size


@given(FREQUENCIES)
def test_a_frequency_survives_being_written(frequency: Frequency) -> None:
    assert Frequency.parse(str(frequency)) == frequency


@given(st.from_regex(Bytes.pattern, fullmatch=True))
@example("9999999999999999999.999999999Pi")
@example("0.0")
def test_every_text_of_the_pattern_is_read_exactly_or_refused_as_out_of_range(text: str) -> None:
    found = read(Bytes, text)
    if isinstance(found, str):
        assert "is out of range" in found
    else:
        number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]  # the pattern
        assert Decimal(found) == Decimal(number) * Bytes.units[unit]


@given(st.text())
def test_any_other_text_is_refused_with_the_remedy(text: str) -> None:
    for kind in (Bytes, Frequency):
        found = read(kind, text)
        assert kind.remedy in found if isinstance(found, str) else found > 0


def read(kind: type[Bytes] | type[Frequency], text: str) -> int | str:
    """Return the number, or the sentence it is refused with."""
    try:
        return kind.parse(text)
    except ValueError as refused:
        return str(refused)
