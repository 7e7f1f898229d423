"""vCPUs and memory of a running guest converge to what is wanted, never above what it was started with room for."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.machine import Hardware, Machine, Run
from virtfleet_api.report import MachineReport, Phase
from virtfleet_node.core.changed import changed_fields
from virtfleet_node.core.changed_compute import held_compute
from virtfleet_node.core.compute import AttachedMemory, AttachedVcpus, Dimm, MemoryDevice
from virtfleet_node.core.compute_actions import (
    AttachDimm,
    DetachDimm,
    PlugVcpus,
    RequestMemory,
    SetBalloon,
    SetGuestVcpus,
    UnplugVcpus,
)
from virtfleet_node.core.desired.cpu import queue_count, started_vcpus
from virtfleet_node.core.desired.memory import SECTION_BYTES, device_bytes, dimm_room
from virtfleet_node.core.due import Change, asked_again, memory_key, outstanding, plug_key, unplug_key, vcpus_key
from virtfleet_node.core.memory_target import memory_target
from virtfleet_node.core.observed import Asking, DomainState, Observed, ObservedDomain
from virtfleet_node.core.plan_memory import plan_memory
from virtfleet_node.core.plan_vcpus import plan_vcpus
from virtfleet_node.core.record import new_stored
from virtfleet_node.core.report import with_steady_memory
from virtfleet_node.core.tcg_cache import has_room

MIB = 1 << 20
NOW = datetime(2030, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=5)


def machine(**hardware: object) -> Machine:
    given = {"memory_bytes": 512 * MIB, **hardware}
    return Machine(
        uid="0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0", namespace="a", name="b", run=Run.RUNNING, hardware=Hardware(**given)
    )


@dataclass
class Guest:
    """A running guest that does what it is asked, as far as it can."""

    started: Machine
    driver: bool = True
    """It has a driver for virtio-mem."""
    agent: bool = True
    emulated: bool = True
    gives: bool = True
    """It gives back what it is asked for."""
    room: bool = True
    """QEMU's cache of translated code has parts that nobody has begun."""
    onlines: bool = True
    """It brings plugged vCPUs online by itself."""
    memory: AttachedMemory = field(init=False)
    vcpus: AttachedVcpus = field(init=False)
    online: int = 0
    asked: dict[str, Asking] = field(default_factory=dict)
    now: datetime = NOW
    count: int = 0

    def __post_init__(self) -> None:
        hardware = self.started.hardware
        size = device_bytes(hardware)
        device = MemoryDevice(size) if size else None
        room, slots = (dimm_room(hardware), 16) if size else (0, 0)
        self.memory = AttachedMemory(hardware.memory_bytes, device=device, dimm_room_bytes=room, free_slots=slots)
        self.vcpus = AttachedVcpus(hardware.vcpus, hardware.vcpu_ceiling, emulated=self.emulated)
        self.online = hardware.vcpus

    def observe(self) -> Observed:
        stored = new_stored(self.started).model_copy(update={"started": self.started.hardware})
        domain = ObservedDomain(
            DomainState.RUNNING, agent_connected=self.agent, stored=stored, vcpus=self.vcpus, memory=self.memory
        )
        guest = self.online if self.agent else None
        self.asked = outstanding(self.asked, domain, guest)
        return Observed(domain, asked=self.asked, guest_vcpus=guest)

    def plan(self, desired: Machine) -> list[Change]:
        observed = self.observe()
        return [*plan_vcpus(desired, observed, self.now), *plan_memory(desired, observed, self.now)]

    def remember(self, key: str) -> None:
        self.asked = asked_again(self.asked, key, self.now)

    def apply(self, action: object) -> None:
        match action:
            case PlugVcpus(count):
                self.remember(plug_key(count))
                if not self.room:
                    return
                assert self.vcpus.plugged < count <= self.vcpus.ceiling
                self.vcpus = replace(self.vcpus, plugged=count)
                self.online = count if self.onlines else self.online
            case UnplugVcpus(count):
                assert not self.emulated
                self.remember(unplug_key(count))
                if self.gives:
                    self.vcpus, self.online = replace(self.vcpus, plugged=count), min(self.online, count)
            case SetGuestVcpus(count):
                assert self.agent
                assert count <= self.vcpus.plugged
                self.remember(vcpus_key(count))
                self.online = count
            case _:
                self.apply_memory(action)

    def apply_memory(self, action: object) -> None:
        memory = self.memory
        match action:
            case RequestMemory(size):
                assert memory.device
                assert size <= memory.device.size_bytes
                assert size % memory.device.block_bytes == 0
                self.remember(memory_key(size))
                takes = size if self.driver and (self.gives or size > memory.device.current_bytes) else None
                current = memory.device.current_bytes if takes is None else takes
                device = replace(memory.device, requested_bytes=size, current_bytes=current)
                self.memory = replace(memory, device=device)
            case SetBalloon(level):
                self.memory = replace(memory, balloon_bytes=memory.boot_bytes + memory.dimm_bytes - level)
            case AttachDimm(size):
                assert size % SECTION_BYTES == 0
                assert size <= memory.dimm_room_bytes
                self.count += 1
                dimms = (*memory.dimms, Dimm(f"dimm{self.count}", size))
                self.memory = replace(
                    memory, dimms=dimms, dimm_room_bytes=memory.dimm_room_bytes - size, free_slots=16 - len(dimms)
                )
            case DetachDimm(alias):
                self.remember(alias)
                if self.gives:
                    kept = tuple(dimm for dimm in memory.dimms if dimm.alias != alias)
                    freed = memory.dimm_bytes - sum(dimm.size_bytes for dimm in kept)
                    self.memory = replace(
                        memory,
                        dimms=kept,
                        dimm_room_bytes=memory.dimm_room_bytes + freed,
                        free_slots=16 - len(kept),
                    )

    def converge(self, desired: Machine, lost: frozenset[int] = frozenset()) -> None:
        """Carry out plan after plan, five seconds apart; some actions are lost, and so is what the daemon remembers."""
        for number in range(40):
            changes = self.plan(desired)
            balloon = self.memory.balloon_bytes
            for change in changes:
                if change.due is None and number not in lost:
                    self.apply(change.action)
            assert self.vcpus.plugged <= self.vcpus.ceiling
            device = self.memory.device
            grew = device is not None and device.requested_bytes > 0
            assert not (grew and self.memory.balloon_bytes > balloon), "inflates and plugs at once"
            if number in lost:
                self.asked = {}
            self.now += STEP


cores = st.integers(1, 4)
sizes = st.integers(128, 1024).map(lambda blocks: blocks * 2 * MIB)


def grown(desired_cores: int, size: int) -> Machine:
    return machine(cores=desired_cores, max_vcpus=4, memory_bytes=size, max_memory_bytes=2048 * MIB)


@given(
    st.lists(st.tuples(cores, sizes), min_size=1, max_size=4),
    st.tuples(st.booleans(), st.booleans()),
    st.frozensets(st.integers(0, 8), max_size=4),
)
def test_a_guest_that_does_what_it_is_asked_has_what_is_wanted(
    wishes: list[tuple[int, int]], kind: tuple[bool, bool], lost: frozenset[int]
) -> None:
    guest = Guest(grown(1, 512 * MIB), emulated=kind[0], onlines=kind[1])
    for wanted_cores, size in wishes:
        desired = grown(wanted_cores, size)
        guest.converge(desired, lost)
        observed = guest.observe()
        assert (guest.online, guest.memory.current_bytes) == (wanted_cores, size)
        assert guest.plan(desired) == []
        assert changed_fields(guest.started.hardware, desired.hardware, observed) == ()
        assert held_compute(desired.hardware, observed, guest.now) == ()


@given(st.lists(sizes, min_size=1, max_size=4), st.booleans())
def test_a_guest_without_a_driver_gets_dimms_and_never_more_than_wanted(wishes: list[int], gives: bool) -> None:  # noqa: FBT001
    guest = Guest(grown(1, 512 * MIB), driver=False, gives=gives)
    for size in wishes:
        before = guest.memory.dimm_bytes
        desired = grown(1, size)
        guest.converge(desired)
        missing = size - guest.memory.current_bytes
        if gives:
            assert 0 <= missing < SECTION_BYTES
        else:
            assert guest.memory.dimm_bytes >= before
        said = held_compute(desired.hardware, guest.observe(), guest.now)
        assert bool(said) == (missing != 0), said


@given(sizes, sizes)
def test_the_target_depends_on_what_is_seen_alone_and_holds_once_it_is_reached(one: int, other: int) -> None:
    guest = Guest(grown(1, 512 * MIB))
    guest.converge(grown(1, one))
    target = memory_target(other, guest.memory, refused=False)
    guest.converge(grown(1, other))
    assert memory_target(other, guest.memory, refused=False) == target
    assert not (target.balloon_bytes and target.requested_bytes)


def test_vcpus_that_qemu_cannot_take_are_turned_off_by_the_agent_and_on_again() -> None:
    guest = Guest(grown(4, 512 * MIB))
    guest.converge(grown(1, 512 * MIB))
    assert (guest.vcpus.plugged, guest.online) == (4, 1)
    assert [str(change.action) for change in guest.plan(grown(3, 512 * MIB))] == ["have the guest use 3 vCPUs"]


def test_a_guest_that_keeps_vcpus_from_qemu_has_them_turned_off() -> None:
    guest = Guest(grown(4, 512 * MIB), emulated=False, gives=False)
    guest.converge(grown(2, 512 * MIB))
    assert (guest.vcpus.plugged, guest.online) == (4, 2)


def test_a_machine_that_began_without_ceilings_waits_for_its_next_start_and_says_why() -> None:
    guest = Guest(machine(cores=2))
    desired = grown(4, 1024 * MIB)
    guest.converge(desired)
    assert (guest.online, guest.memory.current_bytes) == (2, 512 * MIB)
    assert changed_fields(guest.started.hardware, desired.hardware, guest.observe()) == (
        "cpu.maxVcpus",
        "memory.max",
        "cpu.cores (4 vCPUs, and the running guest can have 2)",
        "memory.guest (1Gi, and the running guest can have 512Mi)",
    )


def test_memory_of_any_machine_can_be_taken_back_by_the_balloon() -> None:
    guest = Guest(machine())
    guest.converge(machine(memory_bytes=256 * MIB))
    assert guest.memory.current_bytes == 256 * MIB
    guest.converge(machine())
    assert guest.memory.balloon_bytes == 0


def test_vcpus_cannot_be_taken_from_an_emulated_guest_without_an_agent() -> None:
    guest = Guest(grown(4, 512 * MIB), agent=False)
    desired = grown(1, 512 * MIB)
    guest.converge(desired)
    assert guest.vcpus.plugged == 4
    assert changed_fields(guest.started.hardware, desired.hardware, guest.observe()) == (
        "cpu.cores (vCPUs are taken back by the guest agent, which does not answer)",
    )


def test_vcpus_are_plugged_once_qemu_has_room_for_their_code() -> None:
    guest, desired = Guest(grown(1, 512 * MIB), room=False), grown(3, 512 * MIB)
    guest.converge(desired)
    assert held_compute(desired.hardware, guest.observe(), guest.now) == (
        "QEMU has no room for the code of 3 emulated vCPUs just now, and runs 1",
    )
    guest.room = True
    guest.converge(desired)
    assert guest.online == 3


@pytest.mark.parametrize(
    ("used", "cache_mib", "ceiling", "wanted", "room"),
    [
        (11_017_507, 32, 4, 3, True),
        (33_232_595, 32, 4, 3, False),
        (24_000_000, 32, 4, 4, False),
        (24_000_000, 128, 4, 4, True),
        (24_000_000, 32, 64, 2, True),
        (33_400_000, 32, 64, 2, False),
    ],
)
def test_a_vcpu_is_not_plugged_when_it_would_end_qemu(
    used: int, cache_mib: int, ceiling: int, wanted: int, *, room: bool
) -> None:
    info = f"Translation buffer state:\r\ngen code size       {used}/{cache_mib * 1046000}\r\nTB count 1\r\n"
    assert has_room(info, cache_mib, ceiling, wanted) is room
    assert not has_room("unknown command: 'info jit'", cache_mib, ceiling, wanted)


def test_a_guest_that_gives_no_memory_back_is_told_of_with_the_figures() -> None:
    guest = Guest(grown(1, 512 * MIB))
    guest.converge(grown(1, 1024 * MIB))
    guest.gives = False
    desired = grown(1, 768 * MIB)
    guest.converge(desired)
    said = held_compute(desired.hardware, guest.observe(), guest.now)
    assert said == ("it has 1024Mi of memory where it shall have 768Mi",)


def test_memory_that_a_guest_moves_all_the_time_is_told_in_steps_until_it_is_right() -> None:
    def told(size: int, *held: str) -> MachineReport:
        return MachineReport(
            uid="u", namespace="a", name="b", phase=Phase.RUNNING, memory_bytes=size * MIB, held_compute=held
        )

    before = told(600, "it has 600Mi")
    assert with_steady_memory(told(608, "it has 608Mi"), before, 512 * MIB) == before
    assert with_steady_memory(told(640, "it has 640Mi"), before, 512 * MIB).memory_bytes == 640 * MIB
    assert with_steady_memory(told(608), before, 608 * MIB) == told(608)


@pytest.mark.parametrize(("field_name", "word"), [("cores", "cpu.cores"), ("memory_bytes", "memory.guest")])
def test_what_a_class_changes_at_restarts_stays_as_it_is(field_name: str, word: str) -> None:
    guest = Guest(grown(1, 512 * MIB))
    hardware = grown(2, 1024 * MIB).hardware
    started = guest.started.hardware
    kept = {name: getattr(started, name) for name in ("cores", "memory_bytes") if name != field_name}
    desired = guest.started.model_copy(
        update={"hardware": hardware.model_copy(update={**kept, "deferred": (field_name,)})}
    )
    guest.converge(desired)
    assert (guest.online, guest.memory.current_bytes) == (1, 512 * MIB)
    said = changed_fields(started, desired.hardware, guest.observe())
    assert said == (f"{word} (its VMClass changes machines when they restart)",)


def test_sockets_are_all_there_from_the_beginning() -> None:
    hardware = machine(sockets=2, cores=1, threads=2, max_vcpus=16).hardware
    assert started_vcpus(hardware) == (0, 1, 8, 9)


@pytest.mark.parametrize(
    ("vcpus", "most", "queues"), [(2, None, 2), (2, 8, 8), (2, 64, 16), (24, 64, 24), (24, None, 24)]
)
def test_disks_have_queues_for_the_vcpus_to_come_within_bounds(vcpus: int, most: int | None, queues: int) -> None:
    assert queue_count(machine(cores=vcpus, max_vcpus=most).hardware) == queues
