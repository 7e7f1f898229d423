"""What can be changed of the host's devices while a guest runs, as the next actions."""

from collections.abc import Iterator
from datetime import datetime

from virtfleet_api.machine import Machine
from virtfleet_node.core.actions import AttachDevice, DetachDevice
from virtfleet_node.core.due import Change, ask
from virtfleet_node.core.guest_devices import (
    can_detach,
    choose_for_guest,
    has_place,
    missing_devices,
    unwanted_devices,
)
from virtfleet_node.core.observed import Observed


def plan_devices(desired: Machine, observed: Observed, now: datetime) -> Iterator[Change]:
    """Return the changes of a running guest's devices. What goes comes first: it may be in the way of what comes."""
    for seen in unwanted_devices(desired.hardware, observed):
        if can_detach(seen, observed):
            yield ask(DetachDevice(seen.alias), seen.alias, observed, now)
    for device in missing_devices(desired.hardware, observed):
        choice = choose_for_guest(desired, device, observed)
        # A card of several functions is given at the next start: libvirt attaches none of these.
        complete = not choice.obstacle and not any(chosen.companions for chosen in choice.devices)
        if complete and has_place(device, desired.hardware, observed):
            yield Change(AttachDevice(device))
