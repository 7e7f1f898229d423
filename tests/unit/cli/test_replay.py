"""What a console missed is shown once, and nothing twice."""

import time

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_cli.replay import KEPT_BYTES, count_overlap, find_missed, keep_shown

LINES = b"".join(b"[%5d.0] something happens\r\n" % number for number in range(3000))


def test_what_comes_after_what_was_shown_is_missed() -> None:
    shown = keep_shown(LINES[:40_000], LINES[40_000:50_000])
    assert len(shown) == KEPT_BYTES
    assert find_missed(LINES[20_000:60_000], shown) == LINES[50_000:60_000]
    assert find_missed(LINES[20_000:50_000], shown) == b""


def test_a_history_that_begins_within_what_was_shown() -> None:
    assert find_missed(LINES[49_000:60_000], LINES[46_000:50_000]) == LINES[50_000:60_000]


def test_a_history_that_begins_later_tells_so() -> None:
    assert find_missed(LINES[55_000:60_000], LINES[46_000:50_000]) is None
    assert find_missed(b"", LINES) is None


def test_the_last_of_many_prompts_counts() -> None:
    prompt = b"\r\n/ # "
    assert find_missed(prompt * 3 + b"reboot\r\n", prompt) == b"reboot\r\n"


def test_before_the_first_output_everything_is_missed() -> None:
    assert find_missed(b"booting\r\n", b"") == b"booting\r\n"


@given(st.binary(), st.binary(min_size=32, max_size=200), st.binary())
def test_nothing_is_lost_of_what_differs_from_what_was_shown(old: bytes, shown: bytes, new: bytes) -> None:
    missed = find_missed(old + shown + new, shown)
    assert missed is not None
    assert missed == new or shown in shown[1:] + new


@given(st.binary(), st.binary(), st.binary())
def test_an_overlap_is_at_least_what_both_have(before: bytes, both: bytes, after: bytes) -> None:
    size = count_overlap(before + both, both + after)
    assert size >= len(both)
    assert (before + both).endswith((both + after)[:size])


def test_no_guest_can_make_it_slow() -> None:
    started = time.monotonic()
    find_missed(b"a" * 65536, b"a" * 2048 + b"b" + b"a" * 2047)
    count_overlap(b"a" * 65535 + b"b", b"a" * 65536)
    assert time.monotonic() - started < 2
