"""What a guest's agent answers when a file is opened: a number, or what a hostile guest likes."""

import pytest

from virtfleet_node.hypervisor.warm import _read_handle


def test_a_number_is_taken() -> None:
    assert _read_handle('{"return": 1000}') == 1000


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "[]",
        "{}",
        '{"return": {}}',
        '{"return": "one"}',
        '{"return": ' + "[" * 100_000,
        '{"return": 1' + "0" * 5_000 + "}",
    ],
)
def test_nothing_else_is(answer: str) -> None:
    with pytest.raises(ValueError, match="does not answer with the number of a file"):
        _read_handle(answer)
