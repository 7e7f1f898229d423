"""What machines are entitled to: whatever they ask for, nothing is left over, nobody is cheated."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from virtfleet_node.core.cpu_groups import group_by_cpus
from virtfleet_node.core.entitlements import Claim, entitlements, raised_shares

GHZ = 1e9
hertz = st.integers(0, 40).map(lambda n: n * GHZ / 10)
claims = st.builds(
    Claim,
    shares=st.integers(1, 1_000_000).map(float),
    ceiling=st.integers(1, 40).map(lambda n: n * GHZ / 10),
    demand=hertz | st.just(inf),
    reservation=st.just(0.0) | hertz,
)
fleets = st.dictionaries(st.sampled_from("abcdef"), claims, min_size=1)
capacities = st.integers(1, 80).map(lambda n: n * GHZ / 10)


def near(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= 1e-6 * max(abs(wanted), 1.0)


@given(capacities, fleets)
def test_all_is_given_while_somebody_wants_it_and_never_more_than_there_is(c: float, fleet: dict[str, Claim]) -> None:
    given_out = sum(entitlements(c, fleet).values())
    assert near(given_out, min(c, sum(claim.bound for claim in fleet.values())))


@given(capacities, fleets)
def test_nobody_is_above_its_limit_or_demand_nor_below_its_reservation(c: float, fleet: dict[str, Claim]) -> None:
    entitled = entitlements(c, fleet)
    kept = sum(claim.floor for claim in fleet.values()) <= c
    for key, claim in fleet.items():
        assert entitled[key] <= claim.bound * (1 + 1e-9)
        assert not kept or entitled[key] >= claim.floor * (1 - 1e-9)


@given(capacities, fleets)
def test_the_rest_goes_by_shares(c: float, fleet: dict[str, Claim]) -> None:
    """Who wants more than it gets is not worth less a share than anybody whose reservation does not lift it."""
    entitled = entitlements(c, fleet)
    wanting = [k for k, claim in fleet.items() if entitled[k] < claim.bound * (1 - 1e-9)]
    lifted = [k for k, claim in fleet.items() if entitled[k] <= claim.floor * (1 + 1e-9)]
    for poor in wanting:
        for rich in set(fleet) - set(lifted):
            worth = entitled[poor] / fleet[poor].shares
            assert worth >= entitled[rich] / fleet[rich].shares * (1 - 1e-6)


@given(capacities, fleets, st.sampled_from("abcdef"), st.integers(2, 50))
def test_more_shares_or_reservation_never_give_less(c: float, fleet: dict[str, Claim], key: str, times: int) -> None:
    if key not in fleet:
        return
    claim, before = fleet[key], entitlements(c, fleet)[key]
    more = fleet | {key: replace(claim, shares=claim.shares * times)}
    reserved = fleet | {key: replace(claim, reservation=claim.reservation + times * GHZ / 10)}
    assert entitlements(c, more)[key] >= before * (1 - 1e-9)
    assert entitlements(c, reserved)[key] >= before * (1 - 1e-9)


@given(capacities, fleets, st.sampled_from([0.001, 0.5, 7.0, 1000.0]))
def test_only_proportions_of_shares_count(c: float, fleet: dict[str, Claim], times: float) -> None:
    scaled = {key: replace(claim, shares=claim.shares * times) for key, claim in fleet.items()}
    before, after = entitlements(c, fleet), entitlements(c, scaled)
    assert all(near(after[key], before[key]) for key in fleet)


@given(capacities, fleets)
def test_an_idle_machine_costs_the_others_nothing_whatever_it_has_reserved(c: float, fleet: dict[str, Claim]) -> None:
    idle = fleet | {"z": Claim(1000, 9 * GHZ, demand=0.0, reservation=9 * GHZ)}
    assert all(near(value, entitlements(c, idle)[key]) for key, value in entitlements(c, fleet).items())


@given(capacities, fleets)
def test_those_that_want_more_divide_by_their_raised_shares_what_they_are_entitled_to(
    c: float, fleet: dict[str, Claim]
) -> None:
    entitled, shares = entitlements(c, fleet), raised_shares(c, fleet)
    wanting = [key for key, claim in fleet.items() if entitled[key] < claim.bound * (1 - 1e-9)]
    assume(sum(claim.floor for claim in fleet.values()) < c * 0.99)
    for one in wanting:
        for other in wanting:
            assert near(shares[one] * entitled[other], shares[other] * entitled[one])


@given(capacities, fleets)
def test_only_reservations_raise_shares_and_nothing_lowers_them(c: float, fleet: dict[str, Claim]) -> None:
    shares = raised_shares(c, fleet)
    for key, claim in fleet.items():
        assert shares[key] >= claim.shares
        assert shares[key] == claim.shares or claim.reservation > 0


@pytest.mark.parametrize(
    ("reservation", "shares", "wanted"),
    [
        (0, (1000, 2000, 4000), (400, 800, 1600)),
        (700, (1000, 2000, 4000), (700, 700, 1400)),
        (2800, (1000, 2000, 4000), (2800, 0, 0)),
    ],
)
def test_three_machines_on_one_cpu(reservation: int, shares: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    fleet = {n: Claim(share, 2800, reservation=0 if n else reservation) for n, share in enumerate(shares)}
    assert tuple(entitlements(2800, fleet).values()) == pytest.approx(wanted)


cpu_sets = st.dictionaries(st.sampled_from("abcdefgh"), st.frozensets(st.integers(0, 9), max_size=4))


@given(cpu_sets)
def test_groups_share_no_cpu_and_hold_every_machine_once(sets: dict[str, frozenset[int]]) -> None:
    groups = group_by_cpus(sets)
    members = [uid for group in groups for uid in group.members]
    assert sorted(members) == sorted(uid for uid, cpus in sets.items() if cpus)
    assert sum(len(group.cpus) for group in groups) == len(frozenset().union(*(group.cpus for group in groups)))
    for group in groups:
        assert group.cpus == frozenset().union(*(sets[uid] for uid in group.members))


def test_machines_of_two_cells_contend_in_two_groups_until_one_lies_on_both() -> None:
    cells = {"a": frozenset({0, 1}), "b": frozenset({0, 1}), "c": frozenset({2, 3})}
    assert [group.members for group in group_by_cpus(cells)] == [("a", "b"), ("c",)]
    assert [g.members for g in group_by_cpus(cells | {"d": frozenset({1, 2})})] == [("a", "b", "c", "d")]
