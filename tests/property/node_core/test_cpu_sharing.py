"""Weights that follow demand, against a kernel that is simulated: they settle within three seconds and stay."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.machine import CpuScheduling
from virtfleet_node.core.demand import CpuCounters, CpuUse, use_between, wanted
from virtfleet_node.core.entitlements import Claim, entitlements
from virtfleet_node.core.host_cpu import CGROUP_V1, CGROUP_V2, HostCpu, WeightScale
from virtfleet_node.core.shares import Contender, share_out
from virtfleet_node.core.weights import is_step, weight_alone, weights

FREQUENCY = 2_800_000_000
SETTLED = 3


@dataclass
class Kernel:
    """One CPU shared by weight, with what each guest really wants of it."""

    truth: dict[str, float]
    weights: dict[str, int] = field(default_factory=dict)
    counts_waiting: bool = True

    def second(self) -> dict[str, CpuUse]:
        """Run for a second: by weight, and nobody more than it wants."""
        given_out = entitlements(1.0, {key: Claim(self.weights[key], want) for key, want in self.truth.items()})
        return {
            key: CpuUse(had, (self.truth[key] - had) if self.counts_waiting else None) for key, had in given_out.items()
        }


@dataclass
class Daemon:
    """What the daemon does each second, without its calls."""

    schedulings: dict[str, CpuScheduling]
    kernel: Kernel
    demand: dict[str, float] = field(default_factory=dict)
    writes: int = 0

    def look(self, uses: dict[str, CpuUse] | None) -> None:
        for key in self.schedulings:
            use = uses[key] if uses else None
            self.demand[key] = wanted(use, 1, self.demand.get(key))
        contenders = {key: Contender(s, 1, demand=self.demand[key]) for key, s in self.schedulings.items()}
        portions = share_out(contenders, HostCpu(FREQUENCY, 1))
        for key, weight in weights({key: portion.shares for key, portion in portions.items()}, CGROUP_V1).items():
            before = self.kernel.weights.get(key)
            if before is None or is_step(before, weight):
                self.kernel.weights[key] = weight
                self.writes += 1


def ideal(schedulings: dict[str, CpuScheduling], truth: dict[str, float]) -> dict[str, float]:
    return entitlements(
        1.0,
        {key: Claim(s.shares or 1000, 1.0, truth[key], s.reservation_hz / FREQUENCY) for key, s in schedulings.items()},
    )


NAMES = "abcd"
machines = st.fixed_dictionaries(
    {
        name: st.builds(
            CpuScheduling,
            shares=st.sampled_from([500, 1000, 4000]),
            reservation_hz=st.sampled_from([0, 0, 600_000_000]),
        )
        for name in NAMES
    }
)
truths = st.fixed_dictionaries({name: st.sampled_from([0.0, 0.02, 1.0]) for name in NAMES})


@given(machines=machines, before=truths, after=truths, counts_waiting=st.booleans())
def test_weights_settle_within_three_seconds_after_any_change_and_stay(
    machines: dict[str, CpuScheduling], before: dict[str, float], after: dict[str, float], *, counts_waiting: bool
) -> None:
    kernel = Kernel(before, counts_waiting=counts_waiting)
    daemon = Daemon(machines, kernel)
    daemon.look(None)
    for truth in (before, after):
        kernel.truth = truth
        for _ in range(SETTLED):
            daemon.look(kernel.second())
        for _ in range(5):
            had, wished = kernel.second(), ideal(machines, truth)
            for key in NAMES:
                assert had[key].used == pytest.approx(wished[key], rel=0.05, abs=0.03), (key, had, wished)
            daemon.look(had)
        written = daemon.writes
        for _ in range(5):
            daemon.look(kernel.second())
        assert daemon.writes == written  # nothing to write while nothing changes


def test_a_reserved_machine_that_wakes_has_its_reservation_at_once() -> None:
    machines = {
        "a": CpuScheduling(reservation_hz=700_000_000),
        "b": CpuScheduling(shares=2000),
        "c": CpuScheduling(shares=4000),
    }
    kernel = Kernel({"a": 0.0, "b": 1.0, "c": 1.0})
    daemon = Daemon(machines, kernel)
    daemon.look(None)
    for _ in range(6):
        daemon.look(kernel.second())
    assert kernel.second()["b"].used == pytest.approx(1 / 3, rel=0.02)
    kernel.truth["a"] = 1.0
    assert [kernel.second()[key].used for key in "abc"] == pytest.approx([0.25, 0.25, 0.5], rel=0.02)


@given(st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1e9), min_size=1), st.sampled_from([CGROUP_V1, CGROUP_V2]))
def test_weights_are_what_the_kernel_takes_and_keep_their_order(shares: dict[str, float], scale: WeightScale) -> None:
    made = weights(shares, scale)
    assert all(scale.least <= weight <= scale.most for weight in made.values())
    by_shares = [made[key] for key in sorted(shares, key=lambda key: shares[key])]
    assert by_shares == sorted(by_shares)


@pytest.mark.parametrize("scale", [CGROUP_V1, CGROUP_V2])
def test_weights_are_in_proportion_and_those_of_usual_machines_never_change(scale: WeightScale) -> None:
    made = weights({"a": 1000, "b": 2000, "c": 4000}, scale)
    assert made == {key: weight_alone(share, scale) for key, share in (("a", 1000), ("b", 2000), ("c", 4000))}
    assert made["c"] == 4 * made["a"]
    large = weights({"a": 1000, "z": 1_000_000}, scale)
    assert large["z"] <= scale.most
    assert large["z"] / large["a"] == pytest.approx(1000, rel=0.1)


def test_without_a_reservation_weights_are_the_shares_whatever_is_used() -> None:
    idle = {"a": Contender(CpuScheduling(), 2, demand=0.0), "b": Contender(CpuScheduling(shares=7), 1, demand=1.0)}
    assert {key: portion.shares for key, portion in share_out(idle, HostCpu(FREQUENCY, 2)).items()} == {
        "a": 2000,
        "b": 7,
    }


def test_a_domain_that_was_started_anew_has_no_use_yet() -> None:
    assert use_between(CpuCounters(9), CpuCounters(3), 1.0) is None
    assert use_between(CpuCounters(0, 2, 0), CpuCounters(10**9, 2, 10**9), 2.0) == CpuUse(0.5, 0.5)
    assert use_between(CpuCounters(0), CpuCounters(10**9), 1.0) == CpuUse(1.0, None)
