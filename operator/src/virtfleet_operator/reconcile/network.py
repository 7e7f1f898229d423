"""The network as it shall be, put together from what each object asks for, and handed to OVN piece by piece.

A change of one machine's cards touches its own rows and the membership of its groups, nothing else.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

from virtfleet_operator.core.network.compile_group import compile_group
from virtfleet_operator.core.network.compile_port import compile_port
from virtfleet_operator.core.network.compile_switch import compile_switch
from virtfleet_operator.core.network.rows import Row
from virtfleet_operator.core.network.topology import GroupPlan, PortPlan, SwitchPlan


class Engine(Protocol):
    """OVN's northbound database."""

    def set(self, owner: str, rows: Iterable[Row]) -> None:
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
        self._groups: dict[str, GroupPlan] = {}
        self._ports: dict[str, tuple[PortPlan, ...]] = {}
        self._members: dict[str, dict[str, PortPlan]] = defaultdict(dict)

    def put_switch(self, plan: SwitchPlan) -> None:
        """Have this switch, and its ports on it."""
        if self._switches.get(plan.name) == plan:
            return
        self._switches[plan.name] = plan
        self._engine.set(f"switch/{plan.name}", compile_switch(plan))
        for uid, ports in self._ports.items():
            if any(port.switch == plan.name for port in ports):
                self._write_ports(uid)

    def keep_switch(self, name: str) -> None:
        """Leave a switch as it is found: its object is not valid now."""
        if name not in self._switches:
            self._engine.keep(f"switch/{name}")

    def drop_switch(self, name: str) -> None:
        """Have this switch no more."""
        self._switches.pop(name, None)
        self._engine.remove(f"switch/{name}")

    def ports_on(self, switch: str) -> Sequence[PortPlan]:
        """Return the ports of a switch."""
        return [port for ports in self._ports.values() for port in ports if port.switch == switch]

    def ports_of(self, uid: str) -> Sequence[PortPlan]:
        """Return the ports of a machine."""
        return self._ports.get(uid, ())

    def put_ports(self, uid: str, ports: tuple[PortPlan, ...]) -> bool:
        """Have exactly these ports of a machine; return whether that is news."""
        before = self._ports.get(uid, ())
        if before == ports:
            return False
        self._ports[uid] = ports
        self._write_ports(uid)
        self._regroup(before, ports)
        return True

    def keep_ports(self, uid: str) -> None:
        """Leave a machine's ports as they are found: nobody knows what they shall be."""
        if uid not in self._ports:
            self._engine.keep(f"machine/{uid}")

    def drop_ports(self, uid: str) -> bool:
        """Have no ports of a machine; return whether that is news."""
        before = self._ports.pop(uid, ())
        self._engine.remove(f"machine/{uid}")
        self._regroup(before, ())
        return bool(before)

    def put_group(self, plan: GroupPlan) -> None:
        """Have this security group."""
        if self._groups.get(plan.uid) != plan:
            self._groups[plan.uid] = plan
            self._write_group(plan.uid)

    def drop_group(self, uid: str) -> None:
        """Have this security group no more; its members stay closed."""
        self._groups.pop(uid, None)
        self._engine.remove(f"group/{uid}")

    def members(self, uid: str) -> int:
        """Return how many cards belong to a group."""
        return len(self._members.get(uid, ()))

    def complete(self) -> None:
        """Say that every object has been seen: what is left over in the database may go."""
        self._engine.complete()

    def _write_ports(self, uid: str) -> None:
        rows = [
            row
            for port in self._ports[uid]
            if port.switch in self._switches
            for row in compile_port(port, self._switches[port.switch])
        ]
        self._engine.set(f"machine/{uid}", rows)

    def _regroup(self, before: Sequence[PortPlan], after: Sequence[PortPlan]) -> None:
        """Move ports between groups, and write those whose members changed."""
        changed: set[str] = set()
        old, new = ({(group, port.id): port for port in ports for group in port.groups} for ports in (before, after))
        for group, port in old.keys() - new.keys():
            self._members[group].pop(port, None)
            changed.add(group)
        for (group, port), plan in new.items():
            if port not in self._members[group]:
                changed.add(group)
            self._members[group][port] = plan
        for group in sorted(changed):
            self._write_group(group)
            self._watcher.group_members_changed(group)
        for switch in sorted({port.switch for ports in (before, after) for port in ports}):
            self._watcher.switch_ports_changed(switch)

    def _write_group(self, uid: str) -> None:
        if uid in self._groups:
            self._engine.set(f"group/{uid}", compile_group(self._groups[uid], sorted(self._members[uid])))
