"""Which devices of the host a running guest has, which it is yet to get, and what a machine holds.

What the guest has is read from its domain; what was chosen for it is kept with its document before it gets it, so
that a daemon that dies in between never gives one device twice.
"""

from collections.abc import Sequence
from datetime import datetime

from virtfleet_api.device import GpuMode
from virtfleet_api.machine import Hardware, Machine, MachineDevice, Run
from virtfleet_api.report import AssignedDevice
from virtfleet_node.core.chosen import ChosenDevice
from virtfleet_node.core.devices import Choice, choose, keep
from virtfleet_node.core.observed import HOLDS_AFTER, AttachedDevice, Observed, ObservedDomain
from virtfleet_node.core.places import assign, device_key
from virtfleet_node.core.record import Life


def held(desired: Machine, domain: ObservedDomain) -> tuple[ChosenDevice, ...]:
    """Return the devices that a machine holds: those of a guest that runs or starts, else none.

    One that was chosen for a running guest, which has not got it and shall not any more, is free.
    """
    stored = domain.stored
    kept = stored.devices if stored else ()
    if not domain.active:
        return kept if stored and stored.record.life is not Life.OFF else ()
    there = {seen.name for seen in domain.devices}
    wanted = {device.name for device in desired.hardware.devices}
    known = tuple(device for device in kept if device.name in there or device.name in wanted)
    names = {device.name for device in known}
    return (*known, *(_unknown(seen) for seen in domain.devices if seen.name not in names))


def _unknown(seen: AttachedDevice) -> ChosenDevice:
    """Return what a guest has and nothing is kept of, such as after somebody took the metadata away."""
    mode = GpuMode.MEDIATED if seen.mediated else GpuMode.PASSTHROUGH
    if seen.mediated:
        return ChosenDevice(name=seen.name, mode=mode, address="", mediated_uuid=seen.address)
    return ChosenDevice(name=seen.name, mode=mode, address=seen.address)


def choose_for_start(desired: Machine, observed: Observed) -> Choice:
    """Return the devices of a machine that starts, or why it waits."""
    before = observed.domain.stored.devices if observed.domain.stored else ()
    return choose(desired.uid, desired.hardware.devices, before, observed.host)


def choose_for_guest(desired: Machine, device: MachineDevice, observed: Observed) -> Choice:
    """Return the device for a guest that runs already, or why it waits."""
    return keep(desired.uid, desired.hardware.devices, held(desired, observed.domain), device, observed.host)


def attached_device(device: MachineDevice, observed: Observed) -> AttachedDevice | None:
    """Return what a running guest has of a device."""
    return next((seen for seen in observed.domain.devices if seen.name == device.name), None)


def missing_devices(hardware: Hardware, observed: Observed) -> tuple[MachineDevice, ...]:
    """Return the devices that a running guest has not got; a Virgl GPU is there from the start, or not at all."""
    given = (device for device in hardware.devices if device.mode is not GpuMode.VIRGL)
    return tuple(device for device in given if attached_device(device, observed) is None)


def unwanted_devices(hardware: Hardware, observed: Observed) -> tuple[AttachedDevice, ...]:
    """Return the devices of ours that a running guest has and its document does not."""
    wanted = {device.name for device in hardware.devices}
    return tuple(seen for seen in observed.domain.devices if seen.name not in wanted)


def can_detach(seen: AttachedDevice, observed: Observed) -> bool:
    """Tell whether a guest can be asked to let go of a device: libvirt takes no card of several functions away."""
    kept = observed.domain.stored.devices if observed.domain.stored else ()
    return not any(device.name == seen.name and device.companions for device in kept)


def has_place(device: MachineDevice, hardware: Hardware, observed: Observed) -> bool:
    """Tell whether a device can be given to the guest while it runs: its place is there, and free."""
    if "q35" in observed.domain.machine_type:
        return assign(observed.places, hardware).ports[device_key(device.name)] in observed.domain.free_ports
    return observed.domain.machine_type.startswith("pc")


def device_waits(desired: Machine, observed: Observed) -> str:
    """Say which device a machine waits for, and why; nothing when it waits for none."""
    if desired.run in {Run.STOPPED, Run.ABSENT}:
        return ""
    if not observed.domain.active:
        return choose_for_start(desired, observed).obstacle
    waiting = missing_devices(desired.hardware, observed)
    obstacles = (choose_for_guest(desired, device, observed).obstacle for device in waiting)
    return next((obstacle for obstacle in obstacles if obstacle), "")


def _brings_others(device: MachineDevice, hardware: Hardware, observed: Observed) -> bool:
    """Tell whether the guest would get a card of several functions, none of which libvirt attaches."""
    stored = observed.domain.stored
    choice = keep("", hardware.devices, stored.devices if stored else (), device, observed.host)
    return any(chosen.companions for chosen in choice.devices)


def changed_devices(started: Hardware, desired: Hardware, observed: Observed) -> Sequence[str]:
    """Return the devices that take effect at the next start."""
    changed = []
    before = {device.name: device for device in started.devices}
    kept = {device.name: device for device in (observed.domain.stored.devices if observed.domain.stored else ())}
    for device in desired.devices:
        was = before.get(device.name)
        drawn = GpuMode.VIRGL in {device.mode, was.mode if was else device.mode}
        given = kept.get(device.name)
        if drawn:
            if was is None or was.mode is not device.mode:
                changed.append(device.name)
        elif attached_device(device, observed) is None:
            if not has_place(device, desired, observed) or _brings_others(device, desired, observed):
                changed.append(device.name)
        elif given and (given.mode, given.device_class) != (device.mode, device.device_class):
            changed.append(device.name)
    names = {device.name for device in desired.devices}
    changed += [name for name, was in before.items() if was.mode is GpuMode.VIRGL and name not in names]
    changed += [seen.name for seen in unwanted_devices(desired, observed) if not can_detach(seen, observed)]
    return tuple(f"devices[{name}]" for name in changed)


def held_devices(hardware: Hardware, observed: Observed, now: datetime) -> tuple[str, ...]:
    """Return the devices that the guest has been asked to let go of, and still holds."""
    holds = {alias for alias, asking in observed.asked.items() if now >= asking.first + HOLDS_AFTER}
    return tuple(seen.name for seen in unwanted_devices(hardware, observed) if seen.alias in holds)


def assigned_devices(observed: Observed) -> tuple[AssignedDevice, ...]:
    """Return the devices that a running guest has, as they are reported."""
    kept = {device.name: device for device in (observed.domain.stored.devices if observed.domain.stored else ())}
    return tuple(
        AssignedDevice(
            name=seen.name,
            device_class=kept[seen.name].device_class if seen.name in kept else "",
            address=seen.address,
        )
        for seen in observed.domain.devices
    )
