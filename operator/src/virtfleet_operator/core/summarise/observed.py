"""The part of a machine's status that repeats what its node reports.

A report may be a lie of a stolen node, and parts of it are words of a guest: what is repeated is bounded, printable
and sorted, so that it can neither break a terminal nor change without cause.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from virtfleet_api.quantity import Bytes
from virtfleet_api.report import DiskReport, GuestReport, InterfaceReport, MachineReport, NumaReport
from virtfleet_api.steady import steady_allocation
from virtfleet_api.virtual_machine_status import (
    DeviceStatus,
    DiskStatus,
    GuestStatus,
    InterfaceStatus,
    MachineStatus,
    MemoryStatus,
    NumaStatus,
    VcpuStatus,
    VirtualMachineStatus,
)
from virtfleet_operator.core.network.topology import PortPlan
from virtfleet_operator.core.summarise.bounds import MAX_CELLS, count_of, frequency_of, size_of
from virtfleet_operator.core.summarise.devices import device_statuses
from virtfleet_operator.core.verdict import plain

_MAX_ADDRESSES: Final = 16  # of one card; a guest can give itself any number
_MAX_DISKS: Final = 64  # twice what a spec can hold
_MAX_CARDS: Final = 16  # twice what a spec can hold
_MIB: Final = 2**20
_MAX_WORD: Final = 128  # of a name that a node or a guest says

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Observed:
    """What is repeated."""

    machine: MachineStatus | None = None
    disks: tuple[DiskStatus, ...] = ()
    interfaces: tuple[InterfaceStatus, ...] = ()
    devices: tuple[DeviceStatus, ...] = ()
    guest: GuestStatus | None = None


def kept(old: VirtualMachineStatus) -> Observed:
    """Return what was last known."""
    return Observed(old.machine, old.disks, old.interfaces, old.devices, old.guest)


def observed(report: MachineReport, old: VirtualMachineStatus, ports: Sequence[PortPlan] = ()) -> Observed:
    """Return what a report says; figures that move all the time stay as they were written until they move by a step."""
    before = {(disk.pool, disk.name): disk for disk in old.disks}
    plugged = {port.interface: port for port in ports}
    return Observed(
        machine=_machine(report),
        disks=tuple(
            shown for disk in report.disks[:_MAX_DISKS] if (shown := _disk(disk, before.get((disk.pool, disk.name))))
        ),
        interfaces=tuple(_interface(card, plugged.get(card.name)) for card in report.interfaces[:_MAX_CARDS]),
        devices=device_statuses(report.devices),
        guest=_guest(report.guest),
    )


def _machine(report: MachineReport) -> MachineStatus | None:
    """Return the machine, once its node has defined it."""
    memory, vcpus = size_of(report.memory_bytes), count_of(report.vcpus)
    if memory is None or not vcpus:
        return None
    return MachineStatus(
        uuid=plain(report.uid, _MAX_WORD),
        machine_type=plain(report.machine_type, _MAX_WORD),
        cpu_model=plain(report.cpu_model, _MAX_WORD),
        display=plain(report.display, _MAX_WORD) or None,
        reservation=frequency_of(report.reservation_hz),
        vcpus=VcpuStatus(current=vcpus, max=max(vcpus, count_of(report.max_vcpus))),
        memory=MemoryStatus(
            current=memory, balloon=size_of(report.balloon_bytes), max=size_of(report.max_memory_bytes)
        ),
        numa=_numa(report.numa),
        restarts=count_of(report.restarts),
        started_at=report.started_at.replace(microsecond=0) if report.started_at else None,
    )


def _numa(numa: NumaReport | None) -> NumaStatus | None:
    if numa is None:
        return None
    cells = tuple(sorted({count_of(cell) for cell in numa.cells[:MAX_CELLS]}))
    return NumaStatus(cells=cells, policy=numa.policy, message=plain(numa.message) or None)


def _allocated(disk: DiskReport, before: DiskStatus | None) -> Bytes | None:
    """Return what the disk takes in whole MiB; what is written stays until it is wrong by a step."""
    told = before.allocated if before else None
    steady = steady_allocation(told, disk.allocated_bytes)
    return told if steady == told else size_of(-(-steady // _MIB) * _MIB)


def _disk(disk: DiskReport, before: DiskStatus | None) -> DiskStatus | None:
    capacity = size_of(disk.capacity_bytes)
    if capacity is None:
        return None
    return DiskStatus(
        name=plain(disk.name, _MAX_WORD),
        pool=plain(disk.pool, _MAX_WORD),
        capacity=capacity,
        allocated=_allocated(disk, before),
        backing=plain(disk.backing_image_uid, _MAX_WORD) if disk.backing_image_uid else None,
        target=plain(disk.target, _MAX_WORD),
        message=plain(disk.message) or None,
    )


def _interface(card: InterfaceReport, port: PortPlan | None) -> InterfaceStatus:
    managed = tuple(str(address) for address in port.addresses) if port else ()
    said = tuple(address for address in _addresses(card.ip_addresses) if address not in managed)
    return InterfaceStatus(
        name=plain(card.name, _MAX_WORD),
        mac=plain(card.mac, _MAX_WORD),
        ip_addresses=(*managed, *said)[:_MAX_ADDRESSES],
        switch=port.switch if port else None,
        port=port.id if port else None,
        state=card.state,
    )


def _addresses(reported: Iterable[str]) -> tuple[str, ...]:
    """Return what are addresses, the one to reach the guest by first: IPv4 before IPv6, link-local ones last."""
    found = {address for text in reported if (address := _address(text)) and not address.is_loopback}
    ordered = sorted(found, key=lambda a: (a.is_link_local, a.version, int(a)))
    return tuple(str(address) for address in ordered[:_MAX_ADDRESSES])


def _address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text.partition("/")[0].partition("%")[0])
    except ValueError:
        return None


def _guest(guest: GuestReport | None) -> GuestStatus | None:
    if guest is None:
        return None
    said = {name: plain(text, _MAX_WORD) or None for name, text in guest if text}
    return GuestStatus(os=said.get("os"), kernel=said.get("kernel"), hostname=said.get("hostname"))
