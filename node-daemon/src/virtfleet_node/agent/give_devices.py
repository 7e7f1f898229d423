"""Choose devices of the host for a machine, keep the choice, and only then let the guest have them."""

import logging

from virtfleet_api.machine import Machine, MachineDevice
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.chosen import ChosenDevice
from virtfleet_node.core.desired.devices import build_device_xml
from virtfleet_node.core.desired.guest import Guest, ResolvedPaths
from virtfleet_node.core.devices import HostView, choose, keep
from virtfleet_node.core.guest_devices import held
from virtfleet_node.core.observed import ObservedDomain
from virtfleet_node.core.places import assign
from virtfleet_node.core.record import Stored

_LOG = logging.getLogger(__name__)


def hold_devices(around: Surroundings, desired: Machine, domain: ObservedDomain) -> None:
    """Let the machine hold what it is seen to hold, and free the rest."""
    around.devices.hold(desired.uid, _name(desired), held(desired, domain))


def choose_devices(around: Surroundings, desired: Machine, stored: Stored) -> tuple[ChosenDevice, ...] | None:
    """Choose and hold the devices of a machine that starts; None when another was quicker."""
    choice = choose(desired.uid, desired.hardware.devices, stored.devices, _view(around, desired.uid))
    if choice.obstacle:
        _LOG.info("Waiting for a device", extra={"uid": desired.uid, "reason": choice.obstacle})
        return None
    around.devices.hold(desired.uid, _name(desired), choice.devices)
    return choice.devices


async def attach_device(around: Surroundings, entry: Entry, desired: Machine, device: MachineDevice) -> None:
    """Give a device to a running guest; nothing happens when another machine was quicker."""
    async with entry.lock:
        domain = await around.hypervisor.read(desired.uid)
        stored = domain.stored
        if stored is None or not domain.active or stored.desired != desired:
            return
        has = held(desired, domain)
        choice = keep(desired.uid, desired.hardware.devices, has, device, _view(around, desired.uid))
        if choice.obstacle:
            return
        chosen = next(iter(choice.devices))
        devices = (*(one for one in has if one.name != chosen.name), chosen)
        around.devices.hold(desired.uid, _name(desired), devices)
        places = assign(stored.places, desired.hardware)
        await around.hypervisor.write_stored(stored.model_copy(update={"devices": devices, "places": places}))
    await around.devices.prepare((chosen,))
    paths = ResolvedPaths(console_log=around.console_log(desired.uid))
    xml = build_device_xml(Guest(desired, around.facts, paths, places, devices=devices), chosen)
    await around.hypervisor.attach_device(desired.uid, xml)


def _view(around: Surroundings, uid: str) -> HostView:
    placement = around.cells.placement(uid)
    return around.devices.view(uid, placement.cells if placement else ())


def _name(desired: Machine) -> str:
    return f"{desired.namespace}/{desired.name}"
