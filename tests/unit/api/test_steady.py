import pytest

from virtfleet_api.steady import steady_allocation

MIB = 1 << 20


@pytest.mark.parametrize(
    ("told", "now", "tells"),
    [
        (None, 5, 5),
        (0, 15 * MIB, 0),
        (0, 16 * MIB, 16 * MIB),
        (32 * MIB, 17 * MIB, 32 * MIB),
        (32 * MIB, 1 * MIB, 1 * MIB),
        (1000 * MIB, 1049 * MIB, 1000 * MIB),
        (1000 * MIB, 1050 * MIB, 1050 * MIB),
        (1000 * MIB, 949 * MIB, 949 * MIB),
    ],
)
def test_what_a_disk_takes_is_told_again_after_a_step(told: int | None, now: int, tells: int) -> None:
    assert steady_allocation(told, now) == tells


def test_filling_a_terabyte_is_told_two_hundred_times() -> None:
    told, count = 0, 0
    for now in range(0, 1 << 40, 16 * MIB):
        if (new := steady_allocation(told, now)) != told:
            told, count = new, count + 1
    assert count < 200
