"""The connection to libvirtd: opened, watched, and opened again when libvirtd was restarted.

Events are only turned into keys here. libvirt's event implementation is asyncio's loop (libvirtaio).
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any, Final

import libvirt
import libvirtaio

from virtfleet_node.core.desired.identity import parse_domain_name
from virtfleet_node.core.errors import NodeError, UnavailableError
from virtfleet_node.hypervisor.calls import Calls
from virtfleet_node.hypervisor.listener import Listener
from virtfleet_node.hypervisor.phantoms import LibvirtdState
from virtfleet_node.hypervisor.probe import destroy_probes

_LOG = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 0.5
"""libvirtd is back 0.2 s after its crash; a node without libvirtd costs two tries a second."""

_OPEN_SECONDS: Final = 60.0
"""The first connection after a start of libvirtd waits until it has probed QEMU's capabilities: 4 s, more when busy."""

_KEEPALIVE_SECONDS: Final = 5
_KEEPALIVE_COUNT: Final = 6
"""A libvirtd that hangs is noticed after half a minute."""

_DEVICE_EVENTS: Final = (
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
    libvirt.VIR_DOMAIN_EVENT_ID_TRAY_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,  # QEMU sends it and the next once a second at the most
    libvirt.VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE,
)

_NODE_DEVICE_EVENTS: Final = (
    libvirt.VIR_NODE_DEVICE_EVENT_ID_LIFECYCLE,
    libvirt.VIR_NODE_DEVICE_EVENT_ID_UPDATE,
)


class Connection:
    """A connection that comes back."""

    def __init__(self, uri: str, calls: Calls, state: LibvirtdState) -> None:
        self._uri = uri
        self._state = state
        self._calls = calls
        self._listener: Listener | None = None
        self._connect: libvirt.virConnect | None = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_test(self) -> bool:
        """Tell whether this is libvirt's test driver, which has no guests."""
        return self._uri.startswith("test")

    @property
    def alive(self) -> bool:
        """Tell whether libvirtd answers as far as is known."""
        return self._connect is not None

    def get(self) -> libvirt.virConnect:
        """Return the connection; UnavailableError while there is none."""
        if self._connect is None:
            raise UnavailableError("libvirtd does not answer")
        return self._connect

    async def start(self, listener: Listener) -> None:
        """Connect, waiting until libvirtd answers, and stay connected from then on."""
        libvirt.registerErrorHandler(_quiet, None)
        _use_loop(asyncio.get_running_loop())
        self._listener = listener
        await self._open()
        self._task = asyncio.create_task(self._stay_connected(), name="libvirt-connection")

    async def stop(self) -> None:
        """Let the connection go; guests run on."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._close()

    async def _stay_connected(self) -> None:
        while True:
            await self._lost.wait()
            _LOG.warning("Reconnecting to libvirtd, which closed the connection", extra={"uri": self._uri})
            await self._close()
            self._tell().disconnected()
            await self._open()
            self._tell().connected()

    def _tell(self) -> Listener:
        if self._listener is None:
            raise UnavailableError("the connection was not started")
        return self._listener

    async def _open(self) -> None:
        while True:
            try:
                self._connect = await self._calls.run(self._open_now, _OPEN_SECONDS)
                phantoms = () if self.is_test else await self._calls.run(self._state.forget_phantoms)
            except NodeError as error:
                _LOG.info("Waiting for libvirtd", extra={"uri": self._uri, "reason": str(error)})
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if not phantoms:
                return
            _LOG.warning("Restarting libvirtd, which was killed within a start", extra={"domains": list(phantoms)})
            await self._close()

    def _open_now(self) -> libvirt.virConnect:
        connect = libvirt.open(self._uri)
        self._lost = asyncio.Event()
        if not self.is_test:
            connect.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
            destroy_probes(connect)
            connect.registerCloseCallback(_on_close, self._lost)
            connect.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, self._on_agent, None)
            for event in _DEVICE_EVENTS:
                connect.domainEventRegisterAny(None, event, self._on_change, None)
            with suppress(libvirt.libvirtError):  # without its driver for node devices there is nothing to tell
                for event in _NODE_DEVICE_EVENTS:
                    connect.nodeDeviceEventRegisterAny(None, event, self._on_node_device, None)
        connect.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_change, None)
        return connect

    async def _close(self) -> None:
        connect, self._connect = self._connect, None
        if connect is not None:
            with suppress(NodeError):
                await self._calls.run(connect.close)

    def _on_change(self, _: libvirt.virConnect, domain: libvirt.virDomain, *_event: Any) -> None:
        if (uid := parse_domain_name(domain.name())) is not None:
            self._tell().machine_changed(uid)

    def _on_node_device(self, _: libvirt.virConnect, *_event: Any) -> None:
        self._tell().devices_changed()

    def _on_agent(self, _: libvirt.virConnect, domain: libvirt.virDomain, state: int, *_reason: Any) -> None:
        uid = parse_domain_name(domain.name())
        if uid is None:
            return
        self._tell().machine_changed(uid)
        if state == libvirt.VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED:
            self._tell().agent_connected(uid)


def _on_close(_: libvirt.virConnect, reason: int, lost: asyncio.Event) -> None:
    _LOG.debug("libvirtd closed the connection", extra={"reason": reason})
    lost.set()


def _quiet(*_: object) -> None:
    """Keep libvirt from printing errors, which are raised as well."""


def _use_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Have libvirt's events come by this loop. A second connection must not take those of the first away."""
    current = libvirtaio.getCurrentImpl()
    if current is None or current.loop is not loop:
        libvirtaio.virEventRegisterAsyncIOImpl(loop)
