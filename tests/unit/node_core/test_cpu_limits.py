"""Limits of CPU: from hertz to quotas, changed while a guest runs, or kept until its next start."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree

from virtfleet_api.machine import CpuScheduling, Hardware, Machine, Run
from virtfleet_node.core.changed import changed_fields
from virtfleet_node.core.compute import AttachedVcpus
from virtfleet_node.core.desired.cpu_tune import build_quota, configure_cpu_tune, live_scheduling, parse_quota
from virtfleet_node.core.desired.guest import DomainType, Guest, HostFacts, ResolvedPaths
from virtfleet_node.core.host_cpu import CGROUP_V1, CGROUP_V2, HostCpu
from virtfleet_node.core.limit_actions import LimitCpu
from virtfleet_node.core.limits import NO_QUOTA, CpuQuota
from virtfleet_node.core.observed import DomainState, Observed, ObservedDomain
from virtfleet_node.core.places import Places
from virtfleet_node.core.plan import plan
from virtfleet_node.core.record import Life, Record, Stored
from virtfleet_node.host.inventory import read_inventory

GHZ = 1_000_000_000
NOW = datetime(2026, 11, 27, tzinfo=UTC)
FREQUENCY = 2_800_000_000


@pytest.mark.parametrize(
    ("limit", "vcpus", "frequency", "quota"),
    [
        (None, 2, 2 * GHZ, NO_QUOTA),
        (
            3 * GHZ,
            2,
            2 * GHZ,
            CpuQuota(100_000, 75_000, 150_000),
        ),  # "a 2-vCPU VM limited to 3 GHz gets 1.5 GHz on each"
        (1 * GHZ, 1, 2 * GHZ, CpuQuota(100_000, 50_000, 50_000)),
        (9 * GHZ, 1, 2 * GHZ, CpuQuota(100_000, 450_000, 450_000)),
        (10_000_000, 1, 4 * GHZ, CpuQuota(1_000_000, 2_500, 2_500)),
        (1, 1, 4 * GHZ, CpuQuota(1_000_000, 1_000, 1_000)),
        (1 * GHZ, 1, 0, NO_QUOTA),
    ],
)
def test_a_limit_is_cut_in_equal_parts_and_holds_for_all(
    limit: int | None, vcpus: int, frequency: int, quota: CpuQuota
) -> None:
    assert build_quota(limit, vcpus, frequency) == quota


def machine(scheduling: CpuScheduling, **more: object) -> Machine:
    hardware = Hardware(memory_bytes=1 << 27, cores=2, scheduling=scheduling, **more)
    uid = "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0"
    return Machine(uid=uid, namespace="shop", name="web", run=Run.RUNNING, hardware=hardware)


def running(desired: Machine, started: Machine, quota: CpuQuota = NO_QUOTA) -> Observed:
    stored = Stored(desired=desired, started=started.hardware, record=Record(life=Life.RUNNING, started_at=NOW))
    vcpus = AttachedVcpus(plugged=2, ceiling=2)
    domain = ObservedDomain(DomainState.RUNNING, stored=stored, quota=quota, vcpus=vcpus)
    return Observed(domain, cpu_frequency_hz=FREQUENCY)


def test_a_limit_is_changed_while_the_guest_runs_until_it_is_so() -> None:
    before, after = machine(CpuScheduling()), machine(CpuScheduling(limit_hz=FREQUENCY // 2))
    wanted = CpuQuota(100_000, 25_000, 50_000)
    assert LimitCpu(wanted) in plan(after, running(after, before), NOW).actions
    assert LimitCpu(wanted) not in plan(after, running(after, before, wanted), NOW).actions
    assert LimitCpu(NO_QUOTA) in plan(before, running(before, after, wanted), NOW).actions


def test_what_waits_for_the_next_start_is_named_and_changes_nothing() -> None:
    before = machine(CpuScheduling(shares=5, reservation_hz=1))
    after = machine(
        CpuScheduling(limit_hz=GHZ, reservation_hz=2, shares=9),
        deferred=("scheduling.limit_hz", "scheduling.reservation_hz", "scheduling.shares"),
    )
    seen = running(after, before)
    assert live_scheduling(after, seen.domain.stored) == before.hardware.scheduling
    assert not [a for a in plan(after, seen, NOW).actions if isinstance(a, LimitCpu)]
    assert changed_fields(before.hardware, after.hardware, seen) == ("cpu.limit", "cpu.reservation", "cpu.shares")
    own_shares = machine(after.hardware.scheduling, deferred=("scheduling.limit_hz", "scheduling.reservation_hz"))
    assert live_scheduling(own_shares, seen.domain.stored) == CpuScheduling(shares=9, reservation_hz=1)
    assert changed_fields(before.hardware, own_shares.hardware, seen) == ("cpu.limit", "cpu.reservation")
    at_once = machine(after.hardware.scheduling)
    assert live_scheduling(at_once, seen.domain.stored) == at_once.hardware.scheduling
    assert changed_fields(before.hardware, at_once.hardware, running(at_once, before)) == ()


@pytest.mark.parametrize("limit", [None, GHZ])
def test_what_is_written_is_read(limit: int | None) -> None:
    facts = HostFacts(DomainType.QEMU, "/qemu", cpu=HostCpu(FREQUENCY, 2))
    guest = Guest(machine(CpuScheduling(limit_hz=limit)), facts, ResolvedPaths(console_log=Path("/log")), Places())
    domain = etree.Element("domain")
    configure_cpu_tune(domain, guest)
    assert parse_quota(domain) == build_quota(limit, 2, FREQUENCY)
    without = etree.Element("domain")
    configure_cpu_tune(without, replace(guest, facts=replace(facts, cpu=HostCpu(FREQUENCY, 2, None))))
    assert len(without) == 0


@pytest.mark.parametrize("shown", ["-1", "17592186044415", "18446744073709551"])
def test_libvirts_ways_to_say_no_limit(shown: str) -> None:
    assert parse_quota(etree.fromstring(f"<domain><cputune><quota>{shown}</quota></cputune></domain>")) == NO_QUOTA


def test_the_frequency_is_the_one_that_cpus_keep_up_unless_the_administrator_says_another(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor: 0\ncpu MHz\t\t: 2499.998\n")
    assert read_inventory(tmp_path).cpu_frequency_hz == 2_500_000_000
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "cpuinfo_max_freq").write_text("3900000\n")
    assert read_inventory(tmp_path).cpu_frequency_hz == 3_900_000_000
    (folder / "base_frequency").write_text("2800000\n")
    assert read_inventory(tmp_path).cpu_frequency_hz == 2_800_000_000
    assert read_inventory(tmp_path, 2 * GHZ).cpu_frequency_hz == 2 * GHZ


def test_the_version_of_control_groups_is_found(tmp_path: Path) -> None:
    groups = tmp_path / "sys/fs/cgroup"
    (groups / "cpu").mkdir(parents=True)
    assert read_inventory(tmp_path).weight_scale is None
    (groups / "cpu/cgroup.procs").touch()
    assert read_inventory(tmp_path).weight_scale == CGROUP_V1
    (groups / "cgroup.controllers").write_text("cpuset cpu io memory\n")
    assert read_inventory(tmp_path).weight_scale == CGROUP_V2
