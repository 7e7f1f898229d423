"""Switches, groups and cards as the operator compiles and writes them, on a rig of OVN and nodes.

with SwitchedNetwork(rig) as network:
    network.switch(SWITCH)
    one = network.card(rig.nodes[0], PortPlan(...))
    network.settle()
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from types import TracebackType
from typing import Any, Self, TypeVar

from ovn_rig import OvnRig, Probe, eventually
from virtfleet_api.virtual_switch import DefaultPolicy
from virtfleet_dev.node import Node
from virtfleet_operator.core.network.group import compile_common, compile_group
from virtfleet_operator.core.network.names import COMMON_OWNER, group_owner, port_owner, switch_owner
from virtfleet_operator.core.network.port import compile_port
from virtfleet_operator.core.network.rows import Row
from virtfleet_operator.core.network.switch import compile_switch
from virtfleet_operator.core.network.topology import GroupPlan, PortPlan, SubnetPlan, SwitchPlan
from virtfleet_operator.ovn.northbound import Northbound, OwnerState, Stage

T = TypeVar("T")


class Writer:
    """A Northbound in an event loop of its own, as the operator would have it, for tests that block."""

    def __init__(self, remotes: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.changes: Counter[str] = Counter()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.northbound = self._run(self._make(remotes))
        self._task = self._run(self._start())

    def set(self, owner: str, rows: Sequence[Row]) -> None:
        self.loop.call_soon_threadsafe(self.northbound.set, owner, rows)

    def remove(self, owner: str) -> None:
        self.loop.call_soon_threadsafe(self.northbound.remove, owner)

    def complete(self) -> None:
        self.loop.call_soon_threadsafe(self.northbound.complete)

    def state(self, owner: str) -> OwnerState:
        return self.call(lambda: self.northbound.state(owner))

    def call(self, act: Callable[[], T]) -> T:
        """Do something in the loop."""

        async def acting() -> T:
            return act()

        return self._run(acting())

    def wait_written(self, *owners: str, seconds: float = 20) -> float:
        """Wait until the rows of these owners are in the database; return how long it took, in seconds."""

        def written() -> bool:
            states = self.call(lambda: [self.northbound.state(owner) for owner in owners])
            refused = [state.message for state in states if state.stage is Stage.REFUSED]
            assert not refused, refused
            return all(state.stage is Stage.WRITTEN for state in states)

        return eventually(written, seconds, f"writing {', '.join(owners)[:200]}")

    def close(self) -> None:
        """End the task and the loop."""
        self.call(self._task.cancel)
        eventually(self._task.done, 15, "ending the writer")
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    async def _make(self, remotes: str) -> Northbound:
        return Northbound(remotes, lambda owner: self.changes.update([owner]))

    async def _start(self) -> "asyncio.Task[None]":
        return asyncio.create_task(self.northbound.run())


def subnet(cidr: str, gateway: str | None = None) -> SubnetPlan:
    """Return a subnet whose addresses are handed out by DHCP."""
    return SubnetPlan(ip_network(cidr), ip_address(gateway) if gateway else None, (), None, dhcp=True)


def overlay(name: str, *subnets: SubnetPlan, default_policy: DefaultPolicy = DefaultPolicy.ALLOW) -> SwitchPlan:
    """Return an Overlay switch."""
    return SwitchPlan(name, f"{name}-uid", None, (None,), 1442, default_policy, subnets, None)


def uplink(name: str, *vlans: int | None) -> SwitchPlan:
    """Return an Uplink switch of the physical network of tests."""
    return SwitchPlan(name, f"{name}-uid", "physnet", vlans, 1500, DefaultPolicy.ALLOW, (), None)


def card(number: int, switch: str, *addresses: str, vlan: int | None = None, groups: tuple[str, ...] = ()) -> PortPlan:
    """Return a card; everything about it follows from its number."""
    return PortPlan(
        id=f"00000000-0000-4000-8000-{number:012d}",
        machine=f"default/vm-{number}",
        interface="lan",
        switch=switch,
        vlan=vlan,
        mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
        addresses=tuple(map(ip_address, addresses)),
        allowed=(),
        anti_spoof=True,
        groups=groups,
        outbound=None,
        host_name=f"vm-{number}.default",
        up=True,
    )


@dataclass
class SwitchedNetwork:
    """What the operator has been told, written to the rig's databases."""

    rig: OvnRig
    switches: dict[str, SwitchPlan] = field(default_factory=dict)
    owners: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.writer = Writer(f"unix:{self.rig.central.northbound.socket}")
        self.set(COMMON_OWNER, compile_common())
        self._logged = {node.name: len(controller_log(node)) for node in self.rig.nodes}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        unparsed = [line for node in self.rig.nodes for line in self._unparsed(node)]
        self.rig.remove_probes()
        for owner in self.owners:
            self.writer.remove(owner)
        self.writer.wait_written(*self.owners)
        self.writer.close()
        assert unparsed == [], "\n".join(unparsed)

    def set(self, owner: str, rows: Sequence[Row]) -> None:
        """Say what an owner's rows shall be."""
        self.owners.add(owner)
        self.writer.set(owner, rows)

    def switch(self, plan: SwitchPlan) -> None:
        self.switches[plan.name] = plan
        self.set(switch_owner(plan.name), compile_switch(plan))

    def group(self, plan: GroupPlan) -> None:
        self.set(group_owner(plan.uid), compile_group(plan))

    def port(self, plan: PortPlan) -> None:
        """Write a card's rows."""
        self.set(port_owner(plan.id), compile_port(plan, self.switches[plan.switch]))

    def remove(self, plan: PortPlan | GroupPlan | SwitchPlan) -> None:
        """Remove what is said of something, and wait until it is gone."""
        self.writer.remove(_owner(plan))
        self.writer.wait_written(_owner(plan))

    def plug(self, node: Node, plan: PortPlan, *, prefixes: tuple[int, int] = (24, 64)) -> Probe:
        """Write a card and plug a namespace in, with the card's addresses."""
        self.port(plan)
        addresses = [f"{address}/{prefixes[address.version == 6]}" for address in plan.addresses]
        return self.rig.probe(node, plan.id, plan.mac, *addresses)

    def settle(self) -> None:
        """Wait until everything is written and in the flow tables of all nodes."""
        self.writer.wait_written(*self.owners)
        self.rig.wait_synced()

    def plugged(self, *plans: PortPlan) -> None:
        """Wait until cards are connected, and everything is settled."""
        eventually(
            lambda: all(self.writer.call(lambda: [self.writer.northbound.is_up(plan.id) for plan in plans])),
            10,
            "cards",
        )
        self.settle()

    def _unparsed(self, node: Node) -> list[str]:
        """Return what a node could not make sense of: nobody else would ever hear of it."""
        lines = controller_log(node)[self._logged[node.name] :].splitlines()
        return [line for line in lines if "error parsing" in line or "|lflow|WARN" in line]

    def written(self, *plans: PortPlan | GroupPlan | SwitchPlan) -> float:
        """Wait until what is said of these is in the database."""
        return self.writer.wait_written(*map(_owner, plans))


def controller_log(node: Node) -> str:
    return node.run("cat", "/var/log/ovn/ovn-controller.log")


def _owner(plan: PortPlan | GroupPlan | SwitchPlan) -> str:
    if isinstance(plan, PortPlan):
        return port_owner(plan.id)
    return group_owner(plan.uid) if isinstance(plan, GroupPlan) else switch_owner(plan.name)
