"""Which device of the host a machine gets.

A PCI device can be given as a whole only: VFIO hands out IOMMU groups, so whatever else is in the group must be free
of host drivers, or go with it (https://docs.kernel.org/driver-api/vfio.html).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from virtfleet_api.device import GpuMode
from virtfleet_api.machine import DeviceMatch, MachineDevice
from virtfleet_api.report import HostDevice
from virtfleet_node.core.chosen import ChosenDevice, derive_uuid

NO_RENDER_NODE: Final = (
    "The node cannot draw for guests: it has no /dev/dri/renderD*, or its QEMU has no display egl-headless."
)

_FAR: Final = 1
_MAX_NAMED: Final = 4  # devices in a sentence


@dataclass(frozen=True)
class FoundDevice:
    """A device that is there."""

    report: HostDevice
    """Without users."""
    companions: tuple[str, ...] = ()
    """Functions of the same card and IOMMU group that have to go with it."""


@dataclass(frozen=True)
class NodeDevices:
    """The devices of the host, in the order of their addresses."""

    found: tuple[FoundDevice, ...] = ()
    mediated: Mapping[str, str] = field(default_factory=dict)
    """Mediated devices that exist: libvirt's name by UUID."""

    def groups(self) -> dict[str, int]:
        """Return the IOMMU groups of devices, by address."""
        reports = (one.report for one in self.found)
        return {report.address: report.iommu_group for report in reports if report.iommu_group is not None}


@dataclass(frozen=True)
class Holding:
    """What a machine holds."""

    machine: str
    """namespace/name."""
    devices: tuple[ChosenDevice, ...]


@dataclass(frozen=True)
class HostView:
    """What a machine's devices are chosen from."""

    devices: NodeDevices = field(default_factory=NodeDevices)
    others: tuple[Holding, ...] = ()
    """What other machines hold, or the host is about to get back."""
    draws: bool = False
    """There is a render node."""
    cells: frozenset[int] = frozenset()
    """NUMA cells of the machine, when they are known: near devices are better."""


@dataclass(frozen=True)
class Choice:
    """A device for each that is asked for, or why there is none."""

    devices: tuple[ChosenDevice, ...] = ()
    obstacle: str = ""


@dataclass(frozen=True)
class _Busy:
    """What other machines have, made once for a choice."""

    devices: Mapping[str, frozenset[str]]
    """Machines by the devices that they have, or parts of."""
    whole: Mapping[str, frozenset[str]]
    """Machines by the devices that they have as a whole."""
    groups: Mapping[int, frozenset[str]]
    """Machines by the IOMMU groups that they have devices of."""

    def users(self, device: HostDevice) -> frozenset[str]:
        """Return who has a device, a part of it, or another device of its IOMMU group."""
        there = self.devices.get(device.address, frozenset())
        return there if device.iommu_group is None else there | self.groups.get(device.iommu_group, frozenset())


@dataclass(frozen=True)
class _Candidate:
    chosen: ChosenDevice
    unit: str
    """What can be chosen once."""


def choose(uid: str, asked: Sequence[MachineDevice], before: Sequence[ChosenDevice], view: HostView) -> Choice:
    """Return a device for each that is asked for. What the machine had `before` it gets again where it can.

    A Virgl GPU takes no device, it only needs a render node.
    """
    if any(wanted.mode is GpuMode.VIRGL for wanted in asked) and not view.draws:
        return Choice(obstacle=NO_RENDER_NODE)
    busy, chosen = _busy(view), dict[str, ChosenDevice]()
    for mode in (GpuMode.PASSTHROUGH, GpuMode.MEDIATED):
        wanted = [one for one in asked if one.mode is mode]
        own = {address for device in chosen.values() for address in device.whole}  # these are not divided
        options = [
            [c for c in _candidates(uid, one, before, view, busy) if c.chosen.address not in own] for one in wanted
        ]
        given: dict[str, tuple[int, ChosenDevice]] = {}
        for index, one in enumerate(wanted):
            if not _give(index, options, given, set()):
                return Choice(obstacle=_obstacle(one, view, busy))
        chosen |= {device.name: device for _, device in given.values()}
    return Choice(tuple(_without_doubles([chosen[one.name] for one in asked if one.name in chosen])))


def keep(
    uid: str, asked: Sequence[MachineDevice], has: Sequence[ChosenDevice], wanted: MachineDevice, view: HostView
) -> Choice:
    """Return what a running machine gets for one more device: beside those that it has, which stay as they are."""
    for device in has:
        if (device.name, device.mode, device.device_class) == (wanted.name, wanted.mode, wanted.device_class):
            return Choice((device,))
    others = (*view.others, Holding("this machine", tuple(device for device in has if device.name != wanted.name)))
    return choose(uid, [one for one in asked if one.name == wanted.name], (), replace(view, others=others))


def _give(
    index: int, options: Sequence[Sequence[_Candidate]], given: dict[str, tuple[int, ChosenDevice]], seen: set[str]
) -> bool:
    """Give a device, if need be by giving another one to who has it (a bipartite matching by Kuhn's way)."""
    for candidate in options[index]:
        if candidate.unit in seen:
            continue
        seen.add(candidate.unit)
        holder = given.get(candidate.unit)
        if holder is None or _give(holder[0], options, given, seen):
            given[candidate.unit] = (index, candidate.chosen)
            return True
    return False


def _without_doubles(chosen: Sequence[ChosenDevice]) -> Iterator[ChosenDevice]:
    """Leave out companions that are asked for by themselves, or go with another already."""
    seen = {device.address for device in chosen if not device.is_mediated}
    for device in chosen:
        companions = tuple(address for address in device.companions if address not in seen)
        seen.update(companions)
        yield device.model_copy(update={"companions": companions})


def _busy(view: HostView) -> _Busy:
    known = view.devices.groups()
    devices: dict[str, frozenset[str]] = {}
    whole: dict[str, frozenset[str]] = {}
    groups: dict[int, frozenset[str]] = {}
    for holding in view.others:
        name = frozenset((holding.machine,))
        for device in holding.devices:
            for address in (device.address, *device.companions):
                devices[address] = devices.get(address, frozenset()) | name
            for address in device.whole:
                whole[address] = whole.get(address, frozenset()) | name
                if (group := known.get(address)) is not None:
                    groups[group] = groups.get(group, frozenset()) | name
    return _Busy(devices, whole, groups)


def _candidates(
    uid: str, wanted: MachineDevice, before: Sequence[ChosenDevice], view: HostView, busy: _Busy
) -> tuple[_Candidate, ...]:
    had = {(device.name, device.address) for device in before}

    def rank(one: FoundDevice) -> tuple[int, bool, str]:
        return _distance(one.report, view.cells), (wanted.name, one.report.address) not in had, one.report.address

    ranked = sorted(matching(wanted, view.devices), key=rank)
    if wanted.mode is GpuMode.MEDIATED:
        free = (one for one in ranked if one.report.address not in busy.whole)
        return tuple(part for one in free for part in _parts(uid, wanted, one, view))
    return tuple(
        _Candidate(_whole(wanted, one), one.report.address)
        for one in ranked
        if not one.report.problem and not busy.users(one.report)
    )


def matching(wanted: MachineDevice, devices: NodeDevices) -> tuple[FoundDevice, ...]:
    """Return the devices that a machine may be given, whether they are free or not."""
    return tuple(one for one in devices.found if any(_matches(one.report, match) for match in wanted.matches))


def _matches(device: HostDevice, match: DeviceMatch) -> bool:
    return (
        match.vendor in (None, device.vendor)
        and match.product in (None, device.product)
        and device.pci_class.startswith(match.pci_class or "")
        and match.address in (None, device.address)
        and match.mediated_type in (None, *(made.name for made in device.mediated_types))
    )


def _distance(device: HostDevice, cells: frozenset[int]) -> int:
    return 0 if not cells or device.numa_cell in cells else _FAR


def _whole(wanted: MachineDevice, one: FoundDevice) -> ChosenDevice:
    return ChosenDevice(
        name=wanted.name,
        device_class=wanted.device_class,
        mode=wanted.mode,
        address=one.report.address,
        companions=one.companions,
    )


def _parts(uid: str, wanted: MachineDevice, one: FoundDevice, view: HostView) -> Iterator[_Candidate]:
    """Yield what may be made of a device, each part by itself."""
    address = one.report.address
    own = derive_uuid(uid, wanted.name)
    types = {match.mediated_type for match in wanted.matches if _matches(one.report, match)}
    for made in one.report.mediated_types:
        promised = sum(
            (device.address, device.mediated_type) == (address, made.name)
            and device.mediated_uuid not in view.devices.mediated
            for holding in view.others
            for device in holding.devices
        )
        left = made.available - promised + (own in view.devices.mediated)
        for part in range(left if made.name in types else 0):
            chosen = ChosenDevice(
                name=wanted.name,
                device_class=wanted.device_class,
                mode=GpuMode.MEDIATED,
                address=address,
                mediated_type=made.name,
                mediated_uuid=own,
            )
            yield _Candidate(chosen, f"{address}/{made.name}/{part}")


def _obstacle(wanted: MachineDevice, view: HostView, busy: _Busy) -> str:
    """Say why a machine can have no such device now."""
    kind = wanted.device_class or wanted.name
    found = matching(wanted, view.devices)
    if not found:
        return f"The node has no device {kind}: see spec.devices and status.devices of its VMNode."
    said = ", ".join(_excuse(wanted, one, busy) for one in found[:_MAX_NAMED])
    more = f", and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    return f"No device {kind} of the node is free: {said}{more}."


def _excuse(wanted: MachineDevice, one: FoundDevice, busy: _Busy) -> str:
    address = one.report.address
    if one.report.problem and wanted.mode is not GpuMode.MEDIATED:
        return f"{address} cannot be given ({one.report.problem})"
    if users := sorted(busy.users(one.report)):
        return f"{address} is used by {', '.join(users[:_MAX_NAMED])}"
    return f"{address} is needed twice" if wanted.mode is not GpuMode.MEDIATED else f"{address} has no part left"


def with_users(devices: NodeDevices, holdings: Mapping[str, Holding]) -> tuple[HostDevice, ...]:
    """Return the devices as they are reported, with the machines that have them; `holdings` are by UID."""
    users: dict[str, list[str]] = {}
    for uid, holding in sorted(holdings.items()):
        for device in holding.devices:
            for address in (device.address, *device.companions):
                users.setdefault(address, []).append(uid)
    return tuple(
        one.report.model_copy(update={"used_by": tuple(users[one.report.address])})
        if one.report.address in users
        else one.report
        for one in devices.found
    )


def addresses(holdings: Iterable[Holding]) -> frozenset[str]:
    """Return the devices that are given as a whole."""
    return frozenset(address for holding in holdings for device in holding.devices for address in device.whole)


def uuids(holdings: Iterable[Holding]) -> frozenset[str]:
    """Return the mediated devices that machines have."""
    return frozenset(device.mediated_uuid for holding in holdings for device in holding.devices if device.is_mediated)
