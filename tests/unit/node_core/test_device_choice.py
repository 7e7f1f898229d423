"""Which device a machine gets, and what it is told when it gets none."""

from dataclasses import replace

import pytest

from virtfleet_api.device import GpuMode
from virtfleet_api.machine import DeviceMatch, MachineDevice
from virtfleet_api.report import HostDevice, MediatedType
from virtfleet_node.core.chosen import ChosenDevice, derive_uuid
from virtfleet_node.core.devices import (
    NO_RENDER_NODE,
    Choice,
    FoundDevice,
    Holding,
    HostView,
    NodeDevices,
    choose,
    keep,
    with_users,
)

UID = "11111111-2222-4333-8444-555555555555"
ONE, TWO, THREE = "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"
MANY = [f"0000:{bus:02x}:00.0" for bus in range(1, 8)]
HELD = "0000:01:00.1 (ahci) of the same IOMMU group 1 is used by the host"


def found(address: str, *companions: str, group: int | None = None, **more: object) -> FoundDevice:
    known = {"vendor": "10de", "product": "2236", "pci_class": "030200"}
    group = int(address[5:7], 16) if group is None else group
    report = HostDevice.model_validate({"address": address, "iommu_group": group} | known | more)
    return FoundDevice(report, companions)


def view(*devices: FoundDevice, **held: tuple[ChosenDevice, ...]) -> HostView:
    others = tuple(Holding(f"shop/{name}", given) for name, given in held.items())
    return HostView(NodeDevices(devices), others)


def wanted(name: str, *addresses: str, **more: object) -> MachineDevice:
    matches = tuple(DeviceMatch(address=address) for address in addresses) or (DeviceMatch(vendor="10de"),)
    return MachineDevice.model_validate({"name": name, "device_class": "nvidia.com/A10", "matches": matches} | more)


def whole(name: str, address: str, *companions: str) -> ChosenDevice:
    return ChosenDevice(name=name, device_class="nvidia.com/A10", address=address, companions=companions)


def given(choice: Choice) -> dict[str, str]:
    assert choice.obstacle == ""
    return {device.name: device.address for device in choice.devices}


def test_the_first_free_one_is_taken_and_the_same_one_again() -> None:
    host = view(found(ONE), found(TWO), found(THREE), db=(whole("gpu", ONE),))
    assert given(choose(UID, [wanted("gpu")], (), host)) == {"gpu": TWO}
    assert given(choose(UID, [wanted("gpu")], (whole("gpu", THREE),), host)) == {"gpu": THREE}
    assert given(choose(UID, [wanted("gpu")], (whole("gpu", ONE),), host)) == {"gpu": TWO}, "another has it now"


def test_a_near_one_is_better() -> None:
    host = replace(view(found(ONE, numa_cell=0), found(TWO, numa_cell=1)), cells=frozenset({1}))
    assert given(choose(UID, [wanted("gpu")], (), host)) == {"gpu": TWO}


def test_who_can_take_another_one_makes_way() -> None:
    host = view(found(ONE), found(TWO))
    assert given(choose(UID, [wanted("any"), wanted("one", ONE)], (), host)) == {"any": TWO, "one": ONE}


def test_further_functions_go_along_unless_they_are_asked_for_themselves() -> None:
    sound = "0000:01:00.1"
    host = view(found(ONE, sound), found(sound, ONE, group=1, pci_class="040300"))
    (gpu,) = choose(UID, [wanted("gpu", ONE)], (), host).devices
    assert gpu.companions == (sound,)
    both = choose(UID, [wanted("gpu", ONE), wanted("sound", sound)], (), host)
    assert [(device.address, device.companions) for device in both.devices] == [(ONE, ()), (sound, ())]


def test_a_group_is_given_to_one_machine_alone() -> None:
    host = view(found(ONE, group=7), found(TWO, group=7), db=(whole("gpu", ONE),))
    assert choose(UID, [wanted("gpu", TWO)], (), host).obstacle == (
        f"No device nvidia.com/A10 of the node is free: {TWO} is used by shop/db."
    )


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (view(), "The node has no device nvidia.com/A10: see spec.devices and status.devices of its VMNode."),
        (
            view(found(ONE, problem=HELD)),
            f"No device nvidia.com/A10 of the node is free: {ONE} cannot be given ({HELD}).",
        ),
        (
            view(found(ONE), found(TWO), a=(whole("gpu", ONE),), b=(whole("gpu", TWO),)),
            f"No device nvidia.com/A10 of the node is free: {ONE} is used by shop/a, {TWO} is used by shop/b.",
        ),
        (
            view(*map(found, MANY), a=tuple(whole("x", address) for address in MANY)),
            "No device nvidia.com/A10 of the node is free: "
            + ", ".join(f"{address} is used by shop/a" for address in MANY[:4])
            + ", and 3 more.",
        ),
    ],
)
def test_who_gets_none_reads_which_device_is_in_the_way(host: HostView, said: str) -> None:
    assert choose(UID, [wanted("gpu")], (), host) == Choice(obstacle=said)


def test_two_of_one_are_too_many() -> None:
    said = choose(UID, [wanted("a", ONE), wanted("b", ONE)], (), view(found(ONE))).obstacle
    assert said == f"No device nvidia.com/A10 of the node is free: {ONE} is needed twice."


def part(name: str, **more: object) -> MachineDevice:
    matches = (DeviceMatch(vendor="10de", mediated_type="nvidia-593"),)
    return MachineDevice.model_validate(
        {"name": name, "device_class": "nvidia.com/A10-4Q", "mode": "Mediated", "matches": matches} | more
    )


def dividing(address: str, available: int) -> FoundDevice:
    return found(address, mediated_types=(MediatedType(name="nvidia-593", available=available),))


def test_parts_are_made_of_what_is_not_given_as_a_whole() -> None:
    host = view(dividing(ONE, 9), dividing(TWO, 2), db=(whole("gpu", ONE),))
    choice = choose(UID, [part("a"), part("b")], (), host)
    assert given(choice) == {"a": TWO, "b": TWO}
    assert [device.mediated_uuid for device in choice.devices] == [derive_uuid(UID, name) for name in ("a", "b")]
    assert {device.mode for device in choice.devices} == {GpuMode.MEDIATED}
    too_many = choose(UID, [part("a"), part("b"), part("c")], (), host)
    assert too_many.obstacle == (
        f"No device nvidia.com/A10-4Q of the node is free: {ONE} is used by shop/db, {TWO} has no part left."
    )


def test_a_part_that_is_promised_and_not_made_counts() -> None:
    promised = ChosenDevice(
        name="gpu", mode=GpuMode.MEDIATED, address=ONE, mediated_type="nvidia-593", mediated_uuid="u"
    )
    host = view(dividing(ONE, 1), db=(promised,))
    assert choose(UID, [part("a")], (), host).obstacle
    made = replace(host, devices=replace(host.devices, mediated={"u": "mdev_u"}))
    assert given(choose(UID, [part("a")], (), made)) == {"a": ONE}, "the driver counts it already"
    own = replace(host, others=(), devices=NodeDevices((dividing(ONE, 0),), {derive_uuid(UID, "a"): "mdev_a"}))
    assert given(choose(UID, [part("a")], (), own)) == {"a": ONE}, "it was made before the daemon died"


def test_what_is_divided_is_not_given_as_a_whole() -> None:
    parts = (ChosenDevice(name="gpu", mode=GpuMode.MEDIATED, address=ONE, mediated_uuid="u"),)
    assert choose(UID, [wanted("gpu")], (), view(dividing(ONE, 1), db=parts)).obstacle.endswith(
        f"{ONE} is used by shop/db."
    )


def test_drawing_needs_a_render_node_and_no_device() -> None:
    drawn = MachineDevice(name="gpu", mode=GpuMode.VIRGL)
    assert choose(UID, [drawn], (), view()) == Choice(obstacle=NO_RENDER_NODE)
    assert choose(UID, [drawn], (), replace(view(), draws=True)) == Choice()


def test_a_running_machine_keeps_what_it_has_and_gets_another_one() -> None:
    host, has = view(found(ONE), found(TWO)), (whole("a", ONE),)
    asked = [wanted("a"), wanted("b")]
    assert keep(UID, asked, has, asked[0], host) == Choice(has)
    assert given(keep(UID, asked, has, asked[1], host)) == {"b": TWO}
    assert keep(UID, asked, has, asked[1], view(found(ONE))).obstacle.endswith(f"{ONE} is used by this machine.")
    other = wanted("a", device_class="nvidia.com/A16")
    assert given(keep(UID, [other], has, other, host)) == {"a": ONE}


def test_the_report_names_who_has_what_once_for_each_part() -> None:
    parts = tuple(
        ChosenDevice(name=name, mode=GpuMode.MEDIATED, address=TWO, mediated_uuid=name) for name in ("a", "b")
    )
    devices = NodeDevices((found(ONE), dividing(TWO, 1), found(THREE)))
    told = with_users(devices, {"u1": Holding("x/y", (whole("gpu", THREE, ONE), *parts))})
    assert [device.used_by for device in told] == [("u1",), ("u1", "u1"), ("u1",)]
