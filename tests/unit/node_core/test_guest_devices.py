"""What is done with a running guest's devices, and what is told of them."""

from datetime import UTC, datetime, timedelta

import pytest

from virtfleet_api.device import GpuMode
from virtfleet_api.machine import DeviceMatch, Hardware, Machine, MachineDevice, Run
from virtfleet_api.report import WAITING_FOR_DEVICE, AssignedDevice, HostDevice, Phase
from virtfleet_node.core.actions import AttachDevice, DetachDevice, Start
from virtfleet_node.core.chosen import ChosenDevice
from virtfleet_node.core.devices import NO_RENDER_NODE, FoundDevice, Holding, HostView, NodeDevices
from virtfleet_node.core.due import Change
from virtfleet_node.core.guest_devices import changed_devices, held
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import Asking, AttachedDevice, DomainState, Observed, ObservedDomain
from virtfleet_node.core.plan import plan
from virtfleet_node.core.plan_devices import plan_devices
from virtfleet_node.core.record import Life, Record, new_stored
from virtfleet_node.core.report import build_report

NOW = datetime(2026, 11, 27, tzinfo=UTC)
ONE, TWO = "0000:01:00.0", "0000:02:00.0"
RUNS = Record(life=Life.RUNNING, started_at=NOW)


def wanted(name: str, address: str = ONE, **more: object) -> MachineDevice:
    known = {"device_class": "c/d", "matches": (DeviceMatch(address=address),)}
    return MachineDevice.model_validate({"name": name} | known | more)


def chosen(name: str, address: str = ONE, **more: object) -> ChosenDevice:
    return ChosenDevice.model_validate({"name": name, "device_class": "c/d", "address": address} | more)


def seen(name: str, address: str = ONE) -> AttachedDevice:
    return AttachedDevice(f"ua-device-{name}", name, address)


def host(*companions: str, others: tuple[Holding, ...] = ()) -> HostView:
    reports = [
        HostDevice(address=address, vendor="1", product="2", pci_class="030000", iommu_group=group)
        for group, address in enumerate((ONE, TWO))
    ]
    return HostView(NodeDevices((FoundDevice(reports[0], companions), FoundDevice(reports[1]))), others)


def machine(*devices: MachineDevice, run: Run = Run.RUNNING) -> Machine:
    hardware = Hardware(memory_bytes=1, devices=devices)
    return Machine(uid="11111111-2222-4333-8444-555555555555", namespace="shop", name="db", run=run, hardware=hardware)


def running(
    desired: Machine, *has: AttachedDevice, kept: tuple[ChosenDevice, ...] = (), view: HostView | None = None
) -> Observed:
    stored = new_stored(desired).model_copy(
        update={"devices": kept, "record": RUNS, "started": Hardware(memory_bytes=1)}
    )
    domain = ObservedDomain(
        DomainState.RUNNING,
        stored=stored,
        machine_type="pc-q35-7.2",
        devices=has,
        free_ports=frozenset(range(1, 20)),
    )
    return Observed(domain, host=view or host())


def test_what_is_missing_is_attached_and_what_is_unwanted_is_asked_for_first() -> None:
    desired = machine(wanted("new", TWO))
    observed = running(desired, seen("old"), kept=(chosen("old"),))
    assert list(plan_devices(desired, observed, NOW)) == [
        Change(DetachDevice("ua-device-old")),
        Change(AttachDevice(desired.hardware.devices[0])),
    ]


def test_a_device_that_is_in_use_is_waited_for() -> None:
    desired = machine(wanted("gpu"))
    others = (Holding("shop/web", (chosen("gpu"),)),)
    observed = running(desired, view=host(others=others))
    assert list(plan_devices(desired, observed, NOW)) == []
    report = build_report(desired, observed, GuestFacts(), NOW)
    said = f"No device c/d of the node is free: {ONE} is used by shop/web."
    assert (report.phase, report.reason, report.message) == (Phase.RUNNING, WAITING_FOR_DEVICE, said)
    off = Observed(ObservedDomain(DomainState.OFF, stored=new_stored(desired)), host=host(others=others))
    assert plan(desired, off, NOW).actions == ()
    report = build_report(desired, off, GuestFacts(), NOW)
    assert (report.phase, report.reason, report.message) == (Phase.PROVISIONING, WAITING_FOR_DEVICE, said)
    free = Observed(off.domain, host=host())
    assert any(isinstance(action, Start) for action in plan(desired, free, NOW).actions)
    stopped = build_report(desired.model_copy(update={"run": Run.STOPPED}), off, GuestFacts(), NOW)
    assert (stopped.phase, stopped.message) == (Phase.STOPPED, "")


def test_a_machine_that_is_to_be_drawn_waits_for_a_render_node() -> None:
    desired = machine(MachineDevice(name="gpu", mode=GpuMode.VIRGL))
    off = Observed(ObservedDomain(DomainState.OFF, stored=new_stored(desired)), host=host())
    assert build_report(desired, off, GuestFacts(), NOW).message == NO_RENDER_NODE


def test_the_report_shows_what_the_guest_has_and_what_it_holds() -> None:
    desired = machine()
    observed = running(desired, seen("gpu"), kept=(chosen("gpu"),))
    asked = Observed(observed.domain, asked={"ua-device-gpu": Asking(NOW, NOW)}, host=host())
    later = NOW + timedelta(seconds=6)
    report = build_report(desired, asked, GuestFacts(), later)
    assert report.devices == (AssignedDevice(name="gpu", device_class="c/d", address=ONE),)
    assert report.held_devices == ("gpu",)
    assert build_report(desired, asked, GuestFacts(), NOW).held_devices == ()


@pytest.mark.parametrize(
    ("before", "after", "has", "kept", "changed"),
    [
        ((), (wanted("gpu"),), (), (), ()),
        ((), (wanted("gpu", mode="Virgl"),), (), (), ("devices[gpu]",)),
        ((wanted("gpu", mode="Virgl"),), (), (), (), ("devices[gpu]",)),
        ((wanted("gpu", mode="Virgl"),), (wanted("gpu", mode="Virgl"),), (), (), ()),
        ((wanted("gpu"),), (wanted("gpu"),), (seen("gpu"),), (chosen("gpu"),), ()),
        ((wanted("gpu"),), (wanted("gpu", device_class="e/f"),), (seen("gpu"),), (chosen("gpu"),), ("devices[gpu]",)),
        ((wanted("gpu"),), (), (seen("gpu"),), (chosen("gpu"),), ()),
        ((wanted("gpu"),), (), (seen("gpu"),), (chosen("gpu", companions=["x"]),), ("devices[gpu]",)),
    ],
)
def test_what_waits_for_the_next_start(
    before: tuple[MachineDevice, ...],
    after: tuple[MachineDevice, ...],
    has: tuple[AttachedDevice, ...],
    kept: tuple[ChosenDevice, ...],
    changed: tuple[str, ...],
) -> None:
    desired = machine(*after)
    observed = running(desired, *has, kept=kept)
    assert changed_devices(Hardware(memory_bytes=1, devices=before), desired.hardware, observed) == changed


def test_a_card_of_several_functions_is_given_at_the_next_start() -> None:
    desired = machine(wanted("gpu"))
    observed = running(desired, view=host("0000:01:00.1"))
    assert list(plan_devices(desired, observed, NOW)) == []
    assert changed_devices(Hardware(memory_bytes=1), desired.hardware, observed) == ("devices[gpu]",)


def test_what_is_held() -> None:
    desired = machine(wanted("gpu"))
    stored = new_stored(desired).model_copy(update={"devices": (chosen("gpu"), chosen("gone", TWO))})
    off = ObservedDomain(DomainState.OFF, stored=stored)
    assert held(desired, off) == ()
    begun = ObservedDomain(DomainState.OFF, stored=stored.model_copy(update={"record": Record(life=Life.STARTING)}))
    assert held(desired, begun) == stored.devices, "the daemon may have died within the start"
    active = ObservedDomain(DomainState.RUNNING, stored=stored)
    assert held(desired, active) == (chosen("gpu"),), "chosen and not attached yet"
    lost = ObservedDomain(DomainState.RUNNING, devices=(seen("gpu"),))
    assert [device.address for device in held(desired, lost)] == [ONE], "even without what was kept"
