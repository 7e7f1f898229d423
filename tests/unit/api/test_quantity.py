"""Quantities and frequencies as users write them."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from virtfleet_api.quantity import Bytes, Frequency


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("512Mi", 512 * 2**20),
        ("2Gi", 2 * 2**30),
        ("1.5Gi", 3 * 2**29),
        ("0.5k", 500),
        ("20G", 20 * 10**9),
        ("7Pi", 7 * 2**50),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert Bytes.parse(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "0", "0Gi", "-1", "1.5", "1e3", "2 Gi", "2GB", "2gi", "2Gi\n", " 2Gi", "٣Gi", "9223372036854775808", "8192Pi"],
)
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match='write a size with a unit, such as "512Mi" or "20Gi"'):
        Bytes.parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1Hz", 1), ("700MHz", 700 * 10**6), ("2.8GHz", 2_800_000_000), ("32.768kHz", 32768)],
)
def test_frequencies(text: str, value: int) -> None:
    assert Frequency.parse(text) == value


@pytest.mark.parametrize("text", ["", "3", "0GHz", "3Ghz", "3 GHz", "1.5Hz", "1000001GHz"])
def test_frequencies_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match='write a frequency with a unit, such as "700MHz" or "3GHz"'):
        Frequency.parse(text)


@pytest.mark.parametrize(
    ("text", "written"), [("1024Mi", "1Gi"), ("1536Mi", "1536Mi"), ("1G", "1000000000"), ("1", "1")]
)
def test_sizes_are_written_with_the_largest_binary_unit(text: str, written: str) -> None:
    assert str(Bytes.parse(text)) == written


@pytest.mark.parametrize("value", [2, 2.5, None, True, ["2Gi"]])
def test_a_number_in_yaml_is_refused_with_the_remedy(value: Any) -> None:
    with pytest.raises(ValidationError, match="is not a string: write a size with a unit"):
        TypeAdapter(Bytes).validate_python(value)


def test_a_long_wrong_text_is_not_echoed_whole() -> None:
    with pytest.raises(ValueError, match="is not valid") as refused:
        Bytes.parse("x" * 10_000)
    assert len(str(refused.value)) < 200
