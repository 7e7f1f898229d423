"""The host's devices, and which machine holds which.

Choosing is one step without waiting: who asks later sees what was given before. What is held is in memory; it can be
rebuilt from the machines' documents and domains, where it is kept before a guest gets a device.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from virtfleet_api.report import HostDevice
from virtfleet_node.agent.taken_devices import TakenDevices
from virtfleet_node.core.chosen import ChosenDevice
from virtfleet_node.core.devices import Holding, HostView, NodeDevices, addresses, uuids, with_users
from virtfleet_node.core.errors import NodeError
from virtfleet_node.core.node_devices import parse_node_devices
from virtfleet_node.hypervisor.hypervisor import Hypervisor

_LOG = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS: Final = 300.0
"""Devices come and go with events; this is for what libvirt tells nobody of, such as a driver that was changed."""

GATHER_SECONDS: Final = 0.3
"""A card with many virtual functions makes an event for each."""

_STUB: Final = "vfio-pci"


class DeviceTable:
    """Everything known of the host's devices."""

    def __init__(self, hypervisor: Hypervisor, taken: TakenDevices, *, draws: bool) -> None:
        self._hypervisor = hypervisor
        self._taken = taken
        self._draws = draws
        self._devices = NodeDevices()
        self._holdings: dict[str, Holding] = {}
        self._leaving: frozenset[str] = frozenset()
        """What is being given back: whoever was given it meanwhile waits for the end of that."""
        self._left = asyncio.Condition()
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()
        self._changed.set()  # what an earlier process left is given back once all machines are known
        self._told: object = None
        self._tell: Callable[[], None] = _nobody

    @property
    def draws(self) -> bool:
        """Tell whether the host draws for guests."""
        return self._draws

    def reports(self) -> tuple[HostDevice, ...]:
        """Return the devices, with the machines that have them."""
        return with_users(self._devices, self._holdings)

    def view(self, uid: str, cells: Iterable[int] = ()) -> HostView:
        """Return what a machine's devices are chosen from; those near to its cells are better."""
        others = tuple(holding for other, holding in sorted(self._holdings.items()) if other != uid)
        return HostView(self._devices, others, self._draws, frozenset(cells))

    def hold(self, uid: str, machine: str, devices: Sequence[ChosenDevice]) -> None:
        """Let a machine hold these devices and no others."""
        before = self._holdings.get(uid)
        if devices:
            self._holdings[uid] = Holding(machine, tuple(devices))
        else:
            self._holdings.pop(uid, None)
        if self._holdings.get(uid) != before:
            self._changed.set()

    def changed(self) -> None:
        """Look soon: something happened to a device."""
        self._changed.set()

    async def start(self, tell: Callable[[], None]) -> None:
        """Read the devices, before machines are looked at; `tell` is called when they, or who has them, change."""
        self._tell = tell
        try:
            await self.refresh()
        except NodeError as error:
            _LOG.warning("Reading the host's devices failed", extra={"reason": str(error)})

    async def run(self) -> None:
        """Look when something happened, and now and then."""
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(GATHER_SECONDS)
            self._changed.clear()
            try:
                await self.look()
            except NodeError as error:
                _LOG.warning("Looking at the host's devices failed", extra={"reason": str(error)})

    async def look(self) -> None:
        """Read the devices, give back what nobody holds, and tell of changes; NodeError."""
        await self.refresh()
        if await self._give_back():
            await self.refresh()
            await self._give_back()  # forgets what has come back
        now = (self.reports(), self._devices.mediated)
        if now != self._told:
            self._told = now
            self._tell()

    async def refresh(self) -> None:
        """Read the devices; NodeError."""
        descriptions = await self._hypervisor.read_node_devices()
        self._devices = await asyncio.to_thread(parse_node_devices, descriptions)

    async def prepare(self, devices: Iterable[ChosenDevice]) -> None:
        """Make what a guest is about to get ready, after it has been kept with its document; NodeError."""
        chosen = tuple(devices)
        parts = [device for device in chosen if device.is_mediated]
        whole = [address for device in chosen for address in device.whole]
        made = [device.mediated_uuid for device in parts]
        async with self._left:
            await self._left.wait_for(lambda: self._leaving.isdisjoint((*whole, *made)))
        drivers, taken = self._drivers(), self._taken.now.devices
        # What was bound to vfio-pci by the administrator stays so.
        ours = [address for address in whole if address in taken or drivers.get(address) != _STUB]
        async with self._writing:
            await asyncio.to_thread(self._taken.add, ours, made)
        for part in parts:
            await self._hypervisor.make_mediated(part.address, part.mediated_type, part.mediated_uuid)

    def _drivers(self) -> dict[str, str]:
        return {one.report.address: one.report.driver for one in self._devices.found}

    async def _give_back(self) -> bool:
        """Give back what was taken and nobody holds; tell whether something has moved."""
        taken = self._taken.now
        whole = sorted(taken.devices - addresses(self._holdings.values()))
        parts = sorted(taken.mediated - uuids(self._holdings.values()))
        self._leaving = frozenset((*whole, *parts))
        try:
            return await self._give_back_now(whole, parts)
        finally:
            self._leaving = frozenset()
            async with self._left:
                self._left.notify_all()

    async def _give_back_now(self, whole: Sequence[str], parts: Sequence[str]) -> bool:
        """Give these back, and forget those that are back already, as libvirt's doing mostly is."""
        drivers = self._drivers()
        away = [address for address in whole if drivers.get(address) == _STUB]
        moved = [address for address in away if await self._return_device(address)]
        gone = [uuid for uuid in parts if await self._remove_part(uuid)]
        async with self._writing:
            await asyncio.to_thread(self._taken.forget, set(whole).difference(away), gone)
        return bool(moved or gone)

    async def _return_device(self, address: str) -> bool:
        _LOG.info("Giving a device back to the host", extra={"address": address})
        try:
            await self._hypervisor.give_back(address)
        except NodeError as error:
            _LOG.warning("A device stays with vfio-pci", extra={"address": address, "reason": str(error)})
            return False
        return True

    async def _remove_part(self, uuid: str) -> bool:
        _LOG.info("Removing a mediated device", extra={"uuid": uuid})
        try:
            await self._hypervisor.remove_mediated(uuid)
        except NodeError as error:
            _LOG.warning("A mediated device stays", extra={"uuid": uuid, "reason": str(error)})
            return False
        return True


def _nobody() -> None:
    """Before anybody wants to be told."""
