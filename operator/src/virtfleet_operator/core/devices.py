"""Which devices of a node make up each device class, which of them machines may still be given, and what one asks.

Nothing here chooses a device: the node does, which knows best what is free. This counts, so that a machine goes where
a device can be had.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from virtfleet_api.device import DeviceClassRule, DeviceSelector, GpuMode
from virtfleet_api.machine import DeviceMatch, MachineDevice
from virtfleet_api.report import HostDevice, NodeReport
from virtfleet_api.virtual_machine import PowerState, RunStrategy, VirtualMachine
from virtfleet_api.vm_node import VMNode

Rules = Mapping[str, tuple[DeviceSelector, ...]]
"""What each device class is made of on a node."""

Units = Mapping[str, tuple[str, ...]]
"""What can be given to one machine at a time, by what machines ask for (see `asked_devices`)."""

Kind = frozenset[str]
"""Classes that the same units belong to."""

VIRGL: Final = "for Virgl GPUs"
"""What a machine asks for with a Virgl GPU. No class is named so: classes have a slash."""

_MAX_REPORTED: Final = 2048  # devices of a node that are counted
_MAX_PARTS: Final = 256  # of one device that its driver divides


def rules_of(node: VMNode | None, fleet: Sequence[DeviceClassRule]) -> Rules:
    """Return the classes of a node: those of the whole fleet, and its own, which win."""
    return {rule.device: rule.selectors for rule in (*fleet, *(node.spec.devices if node else ()))}


def is_mediated(selectors: Iterable[DeviceSelector]) -> bool:
    """Tell whether a class is made of mediated devices."""
    return any(selector.mediated_type is not None for selector in selectors)


def compile_devices(vm: VirtualMachine, rules: Rules) -> tuple[MachineDevice, ...]:
    """Return what the node gives the machine: a class that it does not know matches nothing there."""
    gpus = ((gpu.name, gpu.device or "", gpu.mode) for gpu in vm.spec.gpus)
    others = ((device.name, device.device, GpuMode.PASSTHROUGH) for device in vm.spec.host_devices)
    return tuple(
        MachineDevice(name=name, device_class=device, mode=mode, matches=tuple(_matches(rules.get(device, ()), mode)))
        for name, device, mode in (*gpus, *others)
    )


def _matches(selectors: Iterable[DeviceSelector], mode: GpuMode) -> Iterator[DeviceMatch]:
    for selector in selectors:
        if (selector.mediated_type is not None) == (mode is GpuMode.MEDIATED):
            yield DeviceMatch.model_validate(selector.model_dump(by_alias=False))


def asked_devices(vm: VirtualMachine) -> Counter[str]:
    """Return what a machine asks for, with how often: a class, or a class of mediated devices."""
    gpus = (VIRGL if gpu.mode is GpuMode.VIRGL else _key(gpu.device or "", gpu.mode) for gpu in vm.spec.gpus)
    return Counter((*gpus, *(device.device for device in vm.spec.host_devices)))


def promised_devices(vm: VirtualMachine) -> Mapping[str, int]:
    """Return what a bound machine is promised: nothing while it shall be off, so that another may have the device."""
    off = vm.spec.run_strategy is RunStrategy.HALTED or vm.spec.power_state is PowerState.STOPPED
    return {} if off else asked_devices(vm)


def _key(device_class: str, mode: GpuMode) -> str:
    return f"{device_class} (mediated)" if mode is GpuMode.MEDIATED else device_class


def classes_of(
    node: VMNode, fleet: Sequence[DeviceClassRule], report: NodeReport
) -> Mapping[str, tuple[HostDevice, ...]]:
    """Return the devices of the node that make up each class, in the order of the report."""
    devices = report.devices[:_MAX_REPORTED]
    return {
        name: tuple(device for device in devices if any(matches(device, selector) for selector in selectors))
        for name, selectors in rules_of(node, fleet).items()
    }


def matches(device: HostDevice, selector: DeviceSelector) -> bool:
    """Tell whether a device is as a selector says; one with a type is met by what makes mediated devices of it."""
    return (
        selector.vendor in (None, device.vendor)
        and selector.product in (None, device.product)
        and device.pci_class.startswith(selector.pci_class or "")
        and selector.address in (None, device.address)
        and selector.mediated_type in (None, *(made.name for made in device.mediated_types))
    )


def available(device: HostDevice, selectors: Iterable[DeviceSelector]) -> int:
    """Return how many mediated devices of the class may still be made of a device."""
    names = {selector.mediated_type for selector in selectors if matches(device, selector)}
    free = (made.available for made in device.mediated_types if made.name in names)
    return min(max(free, default=0), _MAX_PARTS)


def device_units(node: VMNode, fleet: Sequence[DeviceClassRule], report: NodeReport) -> Units:
    """Return what machines may be given at all, whether it is in use or not. Devices of one IOMMU group are one."""
    rules = rules_of(node, fleet)
    units = {
        _key(name, GpuMode.MEDIATED if is_mediated(rules[name]) else GpuMode.PASSTHROUGH): tuple(
            dict.fromkeys(unit for device in found for unit in _units(device, rules[name]))
        )
        for name, found in classes_of(node, fleet, report).items()
    }
    return units | ({VIRGL: ("render node",)} if report.render_node else {})


def _units(device: HostDevice, selectors: Sequence[DeviceSelector]) -> Iterator[str]:
    if is_mediated(selectors):
        whole = available(device, selectors) + min(len(device.used_by), _MAX_PARTS)
        yield from (f"{device.address}/{part}" for part in range(whole))
    elif not device.problem:
        yield device.address if device.iommu_group is None else f"group-{device.iommu_group}"


def device_refusal(asked: Mapping[str, int], promised: Mapping[str, int], units: Units) -> str:
    """Return why a node cannot give a machine its devices beside those that are promised; nothing when it can."""
    for wanted, count in sorted(asked.items()):
        if len(units.get(wanted, ())) < count:
            return f"without device {wanted}"
    everything = Counter(promised) + Counter(asked)
    # A render node serves any number of machines.
    if not _suffices({name: n for name, n in everything.items() if name in units and name != VIRGL}, units):
        return f"with too few free devices {', '.join(sorted(asked.keys() - {VIRGL}))}"
    return ""


def _suffices(demands: Mapping[str, int], units: Units) -> bool:
    """Tell whether each demand can have a unit of its own, although classes may overlap.

    Units of the same classes are one kind, so that this is a flow between a few classes and kinds, however many devices
    there are.
    """
    classes: dict[str, set[str]] = {}
    for name in demands:
        for unit in units[name]:
            classes.setdefault(unit, set()).add(name)
    room = Counter(frozenset(names) for names in classes.values())
    given = Counter[tuple[str, frozenset[str]]]()
    return all(_serve(name, count, room, given) for name, count in sorted(demands.items()))


def _serve(name: str, count: int, room: Counter[Kind], given: Counter[tuple[str, Kind]]) -> bool:
    """Give units to the demands of a class, if need be by moving those of others to other kinds."""
    while count:
        way = _find_way(name, room, given)
        if not way:
            return False
        pushed = min(count, room[way[-1][1]], *(given[later, kind] for (_, kind), (later, _) in pairwise(way)))
        for (_, kind), (later, _) in pairwise(way):
            given[later, kind] -= pushed
        given.update(dict.fromkeys(way, pushed))
        room[way[-1][1]] -= pushed
        count -= pushed
    return True


def _find_way(name: str, room: Counter[Kind], given: Counter[tuple[str, Kind]]) -> list[tuple[str, Kind]]:
    """Return the shortest way to a free unit: each class takes a kind from the next one, the last a free one."""
    ways: deque[list[tuple[str, Kind]]] = deque([[(name, kind)] for kind in room if name in kind])
    seen = {way[0][1] for way in ways}
    while ways:
        way = ways.popleft()
        last = way[-1][1]
        if room[last]:
            return way
        for other in sorted(last):
            for kind in room if given[other, last] else ():
                if other in kind and kind not in seen:
                    seen.add(kind)
                    ways.append([*way, (other, kind)])
    return []
