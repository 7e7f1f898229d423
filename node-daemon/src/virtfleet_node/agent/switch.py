"""The node's part of the virtual switches: Open vSwitch and the firewall, kept as the operator wants them.

What is wanted is kept in <state directory>/network.json, so that a node works after a restart without an operator.
Nothing is remembered of what was done: all is looked at again and again, and put right where it differs.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from virtfleet_api.node_network import NodeNetwork
from virtfleet_api.report import NetworkReport, UplinkReport
from virtfleet_node.core.desired.interfaces import INTEGRATION_BRIDGE
from virtfleet_node.core.errors import InvalidError
from virtfleet_node.core.firewall import parse_peers
from virtfleet_node.core.network import Decision, Southbound, decide
from virtfleet_node.host.devices import Devices
from virtfleet_node.host.firewall import Firewall
from virtfleet_node.host.open_vswitch import OpenVSwitch
from virtfleet_node.host.programs import ProgramError
from virtfleet_node.storage.files import write_whole

_LOG = logging.getLogger(__name__)

EVERY_SECONDS: Final = 10.0
"""A look starts five programs, which take 50 ms of CPU together."""

_PATIENCE_SECONDS: Final = 12.0
"""An operator waits for an answer for half a minute; a change of Open vSwitch takes 0.1 s."""

TUNNEL: Final = "ovn-encap-ip"

_NO_SWITCH: Final = "This node has no Open vSwitch: install openvswitch-switch and ovn-host, and start them."
_NO_BRIDGE: Final = (
    f"This node's Open vSwitch has no bridge {INTEGRATION_BRIDGE}: ovn-controller makes it once it runs and is "
    "connected; see the conditions of the VMNode."
)


@dataclass(frozen=True)
class Edges:
    """What a node's network is changed by."""

    open_vswitch: OpenVSwitch
    devices: Devices
    firewall: Firewall


class NodeSwitch:
    """Keeps the node's network as it is wanted."""

    def __init__(self, edges: Edges, file: Path, southbound: Callable[[], Southbound | None]) -> None:
        """Take the edges, the file that keeps what is wanted, and how ovn-controller reaches its database."""
        self._edges = edges
        self._file = file
        self._southbound = southbound
        self._wanted: NodeNetwork | None = None
        self._problem = _NO_SWITCH
        self._user_space = False
        self._report: NetworkReport | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._lock = asyncio.Lock()
        self._looks: set[asyncio.Task[None]] = set()

    @property
    def problem(self) -> str:
        """Say why no card can be plugged in, as a sentence; empty when cards can be."""
        return self._problem

    @property
    def user_space(self) -> bool:
        """Tell whether the datapath is the one in user space."""
        return self._user_space

    @property
    def report(self) -> NetworkReport | None:
        """Return what was last seen; None for a node that has neither Open vSwitch nor a firewall."""
        return self._report

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call back when the report, or whether cards can be plugged in, has changed."""
        self._callbacks.append(callback)

    async def start(self) -> None:
        """Take up what an earlier process kept, and look once."""
        self._wanted = await asyncio.to_thread(self._read)
        await self.look()

    async def put(self, wanted: NodeNetwork) -> NetworkReport:
        """Have the node's network be so; durable when this returns. InvalidError for an address that is none."""
        try:
            parse_peers(wanted.peers)
        except ValueError as error:
            raise InvalidError(f"peers: {error}.") from None
        if wanted != self._wanted:
            await asyncio.to_thread(write_whole, self._file, wanted.model_dump_json(exclude_none=True).encode())
            self._wanted = wanted
        await self._look_for(_PATIENCE_SECONDS)
        return self._report or NetworkReport(connected=False, problem=_NO_SWITCH)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look once, and put right what differs from what is wanted."""
        async with self._lock:
            before = self._report, self._problem
            self._report = await self._look()
            if before != (self._report, self._problem):
                for callback in self._callbacks:
                    callback()

    async def _look_for(self, seconds: float) -> None:
        """Look, and wait no longer than that: an Open vSwitch that hangs is told of once it is known to."""
        looking = asyncio.create_task(self.look())
        self._looks.add(looking)
        looking.add_done_callback(self._looks.discard)
        done, _ = await asyncio.wait({looking}, timeout=seconds)
        for task in done:
            task.result()

    async def _look(self) -> NetworkReport | None:
        wanted = self._wanted
        firewall, said = await self._edges.firewall.apply(wanted.peers if wanted else ())
        if not self._edges.open_vswitch.is_there:
            self._problem = _NO_SWITCH
            if not firewall and not said:
                return None
            problem = f"{_NO_SWITCH} {said}".strip()
            return NetworkReport(connected=False, uplinks=_without_switch(wanted), firewall=firewall, problem=problem)
        try:
            report = await self._apply(wanted)
        except ProgramError as error:
            self._problem = f"This node's Open vSwitch does not answer: {error}."
            report = NetworkReport(connected=False, uplinks=_without_switch(wanted), problem=self._problem)
        problem = " ".join(filter(None, (report.problem, said)))
        return report.model_copy(update={"firewall": firewall, "problem": problem})

    async def _apply(self, wanted: NodeNetwork | None) -> NetworkReport:
        edges = self._edges
        seen = await edges.open_vswitch.read()
        devices = await edges.devices.read() if wanted and wanted.uplinks else {}
        decision = decide(wanted, self._southbound(), seen, devices)
        failures = await self._carry_out(decision)
        self._user_space = seen.datapath == "netdev"
        self._problem = "" if INTEGRATION_BRIDGE in seen.bridges else _NO_BRIDGE
        return NetworkReport(
            connected=await edges.open_vswitch.is_connected(),
            tunnel_address=seen.external_ids.get(TUNNEL, ""),
            datapath=seen.datapath,
            uplinks=tuple(_with_failure(uplink, failures) for uplink in decision.uplinks),
            problem=failures.get("", ""),
        )

    async def _carry_out(self, decision: Decision) -> dict[str, str]:
        """Return what failed, by uplink; "" stands for what belongs to none."""
        failures: dict[str, str] = {}
        for transaction in decision.transactions:
            _LOG.info("Changing Open vSwitch", extra={"action": "; ".join(map(" ".join, transaction.commands))})
            try:
                await self._edges.open_vswitch.change(transaction.commands)
            except ProgramError as error:
                failures[transaction.interface] = f"Open vSwitch refused it: {error}."
        for interface in decision.down:
            try:
                await self._edges.devices.set_up(interface)
            except ProgramError as error:
                failures.setdefault(interface, f"It cannot be switched on: {error}.")
        return failures

    def _read(self) -> NodeNetwork | None:
        try:
            return NodeNetwork.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            _LOG.exception("Leaving out a network that cannot be read; the operator sends it again")
            return None


def _with_failure(uplink: UplinkReport, failures: Mapping[str, str]) -> UplinkReport:
    return uplink.model_copy(update={"problem": uplink.problem or failures.get(uplink.interface, "")})


def _without_switch(wanted: NodeNetwork | None) -> tuple[UplinkReport, ...]:
    interfaces = dict.fromkeys(uplink.interface for uplink in wanted.uplinks) if wanted else {}
    return tuple(UplinkReport(interface=name, problem="Open vSwitch does not run.") for name in interfaces)
