"""Counting devices of overlapping classes agrees with giving them one by one."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_operator.core.devices import device_refusal

CLASSES = ("a/a", "b/b", "c/c")
units = st.fixed_dictionaries({name: st.lists(st.sampled_from("12345"), unique=True).map(tuple) for name in CLASSES})
counts = st.dictionaries(st.sampled_from(CLASSES), st.integers(1, 2))


def can_be_given(demands: list[str], have: dict[str, tuple[str, ...]]) -> bool:
    return any(
        all(unit in have[demand] for demand, unit in zip(demands, order, strict=False))
        for order in permutations("12345", min(len(demands), 5))
    ) and len(demands) <= len("12345")


@given(asked=counts, promised=counts, have=units)
def test_a_machine_fits_where_its_devices_can_be_given(
    asked: dict[str, int], promised: dict[str, int], have: dict[str, tuple[str, ...]]
) -> None:
    demands = [name for wanted in (promised, asked) for name, count in wanted.items() for _ in range(count)]
    assert (device_refusal(asked, promised, have) == "") == can_be_given(demands, have)
