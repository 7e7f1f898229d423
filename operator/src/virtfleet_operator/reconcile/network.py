"""The network as it shall be, put together from what each object asks for, and handed to OVN piece by piece.

A change of a machine's cards touches the rows of its ports, and nothing else.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from virtfleet_operator.core.network.group import compile_common, compile_group
from virtfleet_operator.core.network.names import COMMON_OWNER, group_owner, port_owner, switch_owner
from virtfleet_operator.core.network.port import compile_port
from virtfleet_operator.core.network.rows import Row
from virtfleet_operator.core.network.switch import compile_switch
from virtfleet_operator.core.network.topology import GroupPlan, PortPlan, SwitchPlan


class Engine(Protocol):
    """OVN's northbound database."""

    @property
    def trouble(self) -> str | None:
        """What keeps everything from being written; None when nothing does."""

    def refusal(self, owner: str) -> str | None:
        """Return why the database does not take an owner's rows; None when it does, or has not been asked yet."""

    def set(self, owner: str, rows: Collection[Row]) -> None:
        """Have exactly these rows of an owner."""

    def keep(self, owner: str) -> None:
        """Leave an owner's rows as they are found."""

    def remove(self, owner: str) -> None:
        """Have no rows of an owner."""

    def complete(self) -> None:
        """Have no rows of owners that were never named."""


class Watcher(Protocol):
    """Is told whose counts changed."""

    def switch_ports_changed(self, name: str) -> None:
        """The ports of a switch changed."""

    def group_members_changed(self, uid: str) -> None:
        """The members of a security group changed."""


class Network:
    """All switches, ports and groups."""

    def __init__(self, engine: Engine, watcher: Watcher) -> None:
        self._engine = engine
        self._watcher = watcher
        self._switches: dict[str, SwitchPlan] = {}
        self._ports: dict[str, tuple[PortPlan, ...]] = {}
        self._on: dict[str, dict[str, PortPlan]] = defaultdict(dict)
        self._members: dict[str, set[str]] = defaultdict(set)
        engine.set(COMMON_OWNER, compile_common())

    @property
    def trouble(self) -> str | None:
        """Return what keeps everything from being written; None when nothing does."""
        return self._engine.trouble

    def obstacle_of_switch(self, name: str) -> str:
        """Return what keeps a switch from being as it shall be; empty when nothing does."""
        return self._engine.trouble or self._engine.refusal(switch_owner(name)) or ""

    def obstacle_of_group(self, uid: str) -> str:
        """Return what keeps a security group from being in force; empty when nothing does."""
        return self._engine.trouble or self._engine.refusal(group_owner(uid)) or ""

    def put_switch(self, plan: SwitchPlan) -> None:
        """Have this switch, and its ports on it."""
        if self._switches.get(plan.name) != plan:
            self._switches[plan.name] = plan
            self._engine.set(switch_owner(plan.name), compile_switch(plan))
            for port in self._on[plan.name].values():
                self._engine.set(port_owner(port.id), compile_port(port, plan))

    def keep_switch(self, name: str) -> None:
        """Leave a switch as it is found: its object is not valid now."""
        if name not in self._switches:
            self._engine.keep(switch_owner(name))

    def drop_switch(self, name: str) -> None:
        """Have this switch no more."""
        self._switches.pop(name, None)
        self._engine.remove(switch_owner(name))

    def ports_on(self, switch: str) -> Collection[PortPlan]:
        """Return the ports of a switch."""
        return self._on[switch].values()

    def ports_of(self, uid: str) -> Sequence[PortPlan]:
        """Return the ports of a machine."""
        return self._ports.get(uid, ())

    def put_ports(self, uid: str, ports: tuple[PortPlan, ...]) -> None:
        """Have exactly these ports of a machine."""
        before, after = _by_id(self._ports.get(uid, ())), _by_id(ports)
        if before == after:
            return
        self._ports[uid] = ports
        for gone in before.keys() - after.keys():
            self._engine.remove(port_owner(gone))
        for port in ports:
            switch = self._with_vlan(port)
            if switch is not None and before.get(port.id) != port:
                self._engine.set(port_owner(port.id), compile_port(port, switch))
        self._count(before.values(), after.values())

    def keep_ports(self, ids: Iterable[str]) -> None:
        """Leave ports as they are found: nobody knows what they shall be."""
        for port in ids:
            self._engine.keep(port_owner(port))

    def drop_ports(self, uid: str) -> None:
        """Have no ports of a machine."""
        self.put_ports(uid, ())
        self._ports.pop(uid, None)

    def put_group(self, plan: GroupPlan) -> None:
        """Have this security group."""
        self._engine.set(group_owner(plan.uid), compile_group(plan))

    def keep_group(self, uid: str) -> None:
        """Leave the rules of a security group as they are found: its object is not valid now."""
        self._engine.keep(group_owner(uid))

    def drop_group(self, uid: str) -> None:
        """Have this security group no more; its members stay closed."""
        self._engine.remove(group_owner(uid))

    def members(self, uid: str) -> int:
        """Return how many cards belong to a group."""
        return len(self._members[uid])

    def complete(self) -> None:
        """Say that every object has been seen: what is left over in the database may go."""
        self._engine.complete()

    def _with_vlan(self, port: PortPlan) -> SwitchPlan | None:
        """Return the switch of a port, which gets the port's VLAN if none of its cards was in it yet."""
        switch = self._switches.get(port.switch)
        if switch is None or port.vlan in switch.vlans:
            return switch
        wider = replace(switch, vlans=tuple(sorted({*switch.vlans, port.vlan}, key=lambda vlan: vlan or 0)))
        self._switches[switch.name] = wider
        self._engine.set(switch_owner(switch.name), compile_switch(wider))
        return wider

    def _count(self, before: Collection[PortPlan], after: Collection[PortPlan]) -> None:
        """Note which ports are where, and tell whose counts changed."""
        for port in before:
            self._on[port.switch].pop(port.id, None)
        for port in after:
            self._on[port.switch][port.id] = port
        old, new = ({(group, port.id) for port in ports for group in port.groups} for ports in (before, after))
        for group, port_id in old - new:
            self._members[group].discard(port_id)
        for group, port_id in new - old:
            self._members[group].add(port_id)
        for group in sorted({group for group, _ in old ^ new}):
            self._watcher.group_members_changed(group)
        for switch in sorted({port.switch for ports in (before, after) for port in ports}):
            self._watcher.switch_ports_changed(switch)


def _by_id(ports: Iterable[PortPlan]) -> Mapping[str, PortPlan]:
    return {port.id: port for port in ports}
