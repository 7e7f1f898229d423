"""From changes to keys, and from keys to reconcile functions.

Changes of objects come from the cache, changes at nodes from the fleet; both only put keys into the queue.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from virtfleet_api.names import RESTORE_LABEL, SCHEDULE_LABEL
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_address import VMAddress
from virtfleet_api.vm_restore import VMRestore
from virtfleet_api.vm_snapshot import VMSnapshot
from virtfleet_operator.core.network.cards import switched
from virtfleet_operator.core.restores import ENDED, machine_names
from virtfleet_operator.core.summarise.vm_snapshot import SETTLED
from virtfleet_operator.core.validate.vm_snapshot import is_counted
from virtfleet_operator.fleet.errors import NodeError
from virtfleet_operator.kube.cache import Cache, Stored
from virtfleet_operator.kube.errors import KubeError
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import (
    ADDRESS,
    BY_CLASS,
    BY_DISK,
    BY_HOLDER,
    BY_IMAGE,
    BY_LABEL,
    BY_MACHINE,
    BY_NAMESPACE,
    BY_NODE,
    BY_PEER,
    BY_SNAPSHOT,
    BY_SOURCE,
    BY_SWITCH,
    BY_USER,
    CLASS,
    DISK,
    GROUP,
    IMAGE,
    MACHINE,
    NODE,
    RESTORE,
    SCHEDULE,
    SNAPSHOT,
    SWITCH,
    backing_images,
    bound_node,
    image_snapshots,
    named_images,
)
from virtfleet_operator.reconcile.changes import (
    addresses,
    counts,
    device_rules,
    ended_machines,
    is_settled,
    offers_change,
    reserved,
    room_may_change,
)
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.image import reconcile_image
from virtfleet_operator.reconcile.machine import reconcile_machine
from virtfleet_operator.reconcile.node import reconcile_node
from virtfleet_operator.reconcile.queue import KeyedQueue, QueueObserver
from virtfleet_operator.reconcile.restore import restore_network
from virtfleet_operator.reconcile.security_group import reconcile_group
from virtfleet_operator.reconcile.virtual_switch import reconcile_switch
from virtfleet_operator.reconcile.vm_address import reconcile_address
from virtfleet_operator.reconcile.vm_class import reconcile_class
from virtfleet_operator.reconcile.vm_disk import reconcile_disk
from virtfleet_operator.reconcile.vm_restore import reconcile_vm_restore
from virtfleet_operator.reconcile.vm_snapshot import reconcile_snapshot
from virtfleet_operator.reconcile.vm_snapshot_schedule import reconcile_schedule

RECONCILE: Final[Mapping[str, Callable[[Context, Key], Awaitable[float | None]]]] = {
    MACHINE: reconcile_machine,
    IMAGE: reconcile_image,
    NODE: reconcile_node,
    CLASS: reconcile_class,
    DISK: reconcile_disk,
    SWITCH: reconcile_switch,
    GROUP: reconcile_group,
    ADDRESS: reconcile_address,
    SNAPSHOT: reconcile_snapshot,
    SCHEDULE: reconcile_schedule,
    RESTORE: reconcile_vm_restore,
}

UNPLACED: Final = Key("Unplaced", "", "")
"""Stands for all machines without a node: they are looked at together when room may have come."""

UNPLACED_DELAY_SECONDS: Final = 0.2
"""Gathers the changes of a burst, such as many machines being deleted, into one look."""

COUNT_DELAY_SECONDS: Final = 1.0
"""Gathers what changes the counts of a switch or group: each look counts all of its cards or addresses."""

CONCURRENCY: Final = 16
"""Looks at once. They wait for the network most of the time; more of them only make the API server's queue longer."""


class Controller:
    """Looks at whatever has changed."""

    def __init__(self, cache: Cache, observer: QueueObserver) -> None:
        self._cache = cache
        self._context: Context | None = None
        self.queue: KeyedQueue[Key] = KeyedQueue(
            self._look, observer, concurrency=CONCURRENCY, expected=(KubeError, NodeError)
        )
        cache.listen(self._object_changed)

    async def run(self, context: Context) -> None:
        """Look at every object once, then at what changes, until cancelled."""
        self._context = context
        restore_network(context)
        for kind in RECONCILE:
            self._add(self._cache.all(kind))
        await self.queue.run()

    async def _look(self, key: Key) -> float | None:
        if self._context is None:
            raise RuntimeError("the queue runs before its context is there")
        if key == UNPLACED:
            return await self._look_at_unplaced(self._context)
        return await RECONCILE[key.kind](self._context, key)

    async def _look_at_unplaced(self, context: Context) -> float | None:
        keys, again = await context.unplaced.look(self._cache, context.candidates, context.surroundings())
        for key in keys:
            self.queue.add(key)
        return again

    def machine_changed(self, node: str, uid: str) -> None:
        """Look at the machine, or at the node that reports what is not its own."""
        found = self._cache.find(MACHINE, "uid", uid)
        if any(bound_node(stored) == node for stored in found):
            self._add(found)
            self._add(restore for stored in found for restore in self._restores_of(stored))
            for stored in found:
                self._add(self._waiting_snapshots(stored.key))
        else:
            self.queue.add(Key(NODE, "", node))

    def holder_changed(self, uid: str) -> None:
        """Look at the machine that a pod holds a volume for."""
        self._add(self._cache.find(MACHINE, "uid", uid))

    def image_changed(self, node: str, uid: str) -> None:
        """Look at the image, and at the node's machines that may have waited for it."""
        for stored in self._cache.find(IMAGE, "uid", uid):
            self.queue.add(stored.key)
            users = self._cache.find(MACHINE, BY_IMAGE, f"{stored.key.namespace}/{stored.key.name}")
            if self._context and is_settled(self._context, node, uid):
                self._add(user for user in users if bound_node(user) == node)

    def snapshot_changed(self, node: str, uid: str) -> None:
        """Look at the snapshot, if it is that node's or nobody's yet."""
        found = self._cache.find(SNAPSHOT, "uid", uid)
        self._add(stored for stored in found if stored.status.node_name in (node, None))

    def node_changed(self, node: str) -> None:
        """Look at the node, and whether it has room now."""
        self.queue.add(Key(NODE, "", node))
        self._add(self._cache.all(SWITCH))
        self._room_changed()

    def switch_ports_changed(self, name: str) -> None:
        """Look at the switch, whose counts changed."""
        self.queue.add_after(Key(SWITCH, "", name), COUNT_DELAY_SECONDS)

    def group_members_changed(self, uid: str) -> None:
        """Look at the group, whose counts changed."""
        for stored in self._cache.find(GROUP, "uid", uid):
            self.queue.add_after(stored.key, COUNT_DELAY_SECONDS)

    def rows_changed(self, owner: str) -> None:
        """Look at the switch or group whose rows in OVN are in another state than before."""
        kind, _, name = owner.partition("/")
        if kind == "switch":
            self.queue.add(Key(SWITCH, "", name))
        elif kind == "group":
            self._add(self._cache.find(GROUP, "uid", name))

    def everything_changed(self, node: str) -> None:
        """Look at all that concerns the node."""
        self.node_changed(node)
        self._add(self._cache.find(MACHINE, BY_NODE, node))
        self._add(self._cache.all(IMAGE))
        self._add(self._cache.find(DISK, BY_NODE, node))
        self._add(self._cache.find(SNAPSHOT, BY_NODE, node))
        for machine in self._cache.find(MACHINE, BY_NODE, node):
            self._add(self._waiting_snapshots(machine.key))
        self._add(self._unfinished(self._cache.all(RESTORE)))

    def _object_changed(self, key: Key, old: Stored | None, new: Stored | None) -> None:
        self.queue.add(key)
        match key.kind:
            case "VirtualMachine":
                self._machine_object_changed(old, new)
                for kind in (MACHINE, IMAGE):
                    self._add(self._cache.find(kind, BY_SOURCE, f"{key.namespace}/{key.name}"))
                self._captured_machine_changed(key, old, new)
                self._add(restore for stored in (old, new) if stored for restore in self._restores_of(stored))
            case "VMSnapshot":
                self._snapshot_object_changed(key, old, new)
            case "VMRestore":
                self._restore_object_changed(old, new)
            case "VMImage":
                self._add(self._cache.find(MACHINE, BY_IMAGE, f"{key.namespace}/{key.name}"))
                self._copied_image_changed(old, new)
            case "VMDisk":
                self._add(self._cache.find(MACHINE, BY_DISK, f"{key.namespace}/{key.name}"))
            case "VMClass":
                self._add(self._cache.find(MACHINE, BY_CLASS, key.name))
                self._room_changed()  # the machines of the class are of another size
            case "VirtualSwitch" | "SecurityGroup" | "VMAddress":
                self._network_object_changed(key, old, new)
            case "VMNode":
                self._node_object_changed(key, old, new)

    def _node_object_changed(self, key: Key, old: Stored | None, new: Stored | None) -> None:
        if offers_change(old, new):
            self._room_changed()
        if addresses(old) != addresses(new):
            self._add(self._cache.all(NODE))
        if new is None or (old is not None and device_rules(old) != device_rules(new)):
            self._add(self._cache.find(MACHINE, BY_NODE, key.name))
        if new is None or old is None:
            self._add(self._cache.find(DISK, BY_NODE, key.name))
            self._add(self._cache.find(SNAPSHOT, BY_NODE, key.name))

    def _captured_machine_changed(self, key: Key, old: Stored | None, new: Stored | None) -> None:
        """Look at the snapshots that wait for the machine, or at all when it goes; and at the schedules that count it.

        A snapshot that has been captured depends on its machine's object no more.
        """
        self._add(self._waiting_snapshots(key))
        if counts(old) != counts(new):
            self._add(self._cache.find(SNAPSHOT, BY_MACHINE, f"{key.namespace}/{key.name}"))
            self._add(self._cache.find(SCHEDULE, BY_NAMESPACE, key.namespace))

    def _waiting_snapshots(self, machine: Key) -> list[Stored]:
        found = self._cache.find(SNAPSHOT, BY_MACHINE, f"{machine.namespace}/{machine.name}")
        return [stored for stored in found if stored.status.phase not in SETTLED]

    def _snapshot_object_changed(self, key: Key, old: Stored | None, new: Stored | None) -> None:
        """Look at the schedule that made it, and at those that wait until their machine has fewer."""
        named = f"{key.namespace}/{key.name}"
        for kind in (MACHINE, IMAGE):
            self._add(self._cache.find(kind, BY_SNAPSHOT, named))
        self._add(self._unfinished(self._cache.find(RESTORE, BY_SNAPSHOT, named)))
        for stored in (old, new):
            if stored is not None and (maker := stored.meta.labels.get(RESTORE_LABEL)):
                self._add(self._unfinished(self._cache.find(RESTORE, "uid", maker)))
            if stored is not None and (label := stored.meta.labels.get(SCHEDULE_LABEL)):
                self._add(self._cache.find(SCHEDULE, BY_LABEL, f"{key.namespace}/{label}"))
        before, after = (stored.resource if stored is not None else None for stored in (old, new))
        counted = isinstance(after, VMSnapshot) and is_counted(after)
        if isinstance(before, VMSnapshot) and is_counted(before) and not counted:
            self._add(self._waiting_snapshots(Key(MACHINE, key.namespace, before.spec.virtual_machine)))

    def _copied_image_changed(self, old: Stored | None, new: Stored | None) -> None:
        """Look at the snapshot that the image was still to be copied from: it may wait to be removed."""
        before, after = (set(image_snapshots(stored)) if stored else set() for stored in (old, new))
        for name in before - after:
            self.queue.add(Key(SNAPSHOT, *name.split("/", 1)))

    def _restore_object_changed(self, old: Stored | None, new: Stored | None) -> None:
        """Look at what depends on how far a restore is: its machines, and what waits for its end.

        That is the next restore of the machine, the snapshot, which may wait to be removed, and so the schedule that
        wants it to be.
        """
        restore = new or old
        if restore is None or not isinstance(restore.resource, VMRestore):
            return
        namespace, spec = restore.key.namespace, restore.resource.spec
        same_phase = old is not None and new is not None and old.status.phase == new.status.phase
        for name in sorted(ended_machines(old, new)) if same_phase else machine_names(spec.target):
            if (machine := self._cache.get(Key(MACHINE, namespace, name))) is not None:
                self.queue.add(machine.key)
                self._add(self._restores_of(machine))
        snapshot = None if same_phase else self._cache.get(Key(SNAPSHOT, namespace, spec.snapshot))
        if snapshot is not None:
            self.queue.add(snapshot.key)
            self._snapshot_object_changed(snapshot.key, None, snapshot)

    def _restores_of(self, machine: Stored) -> Iterable[Stored]:
        """Return the restores of a machine that have not ended: those that put it back, and the one that made it."""
        key = machine.key
        yield from self._unfinished(self._cache.find(RESTORE, BY_MACHINE, f"{key.namespace}/{key.name}"))
        if maker := machine.meta.labels.get(RESTORE_LABEL):
            yield from self._unfinished(self._cache.find(RESTORE, "uid", maker))

    @staticmethod
    def _unfinished(restores: Iterable[Stored]) -> Iterable[Stored]:
        return (stored for stored in restores if stored.status.phase not in ENDED)

    def _network_object_changed(self, key: Key, old: Stored | None, new: Stored | None) -> None:
        match key.kind:
            case "VirtualSwitch":
                if old is None or new is None or old.body.get("spec") != new.body.get("spec"):
                    self._add(self._cache.find(MACHINE, BY_SWITCH, key.name))
                    self._add(self._cache.find(ADDRESS, BY_SWITCH, key.name))
                    self._add(self._cache.all(NODE))
                    self._add(self._cache.all(SWITCH))  # whose way out it may be
            case "SecurityGroup":
                self._group_changed(key, old, new)
            case "VMAddress":
                self._address_changed(old, new)

    def _group_changed(self, key: Key, old: Stored | None, new: Stored | None) -> None:
        """Look at the members, and at the groups whose rules name this one, when it came, went, or is shared anew."""
        if new is None and old is not None and self._context and self._context.network:
            self._context.network.drop_group(old.uid)
        if old is None or new is None or old.body.get("spec") != new.body.get("spec"):
            catalog = self._context.catalog if self._context else None
            self._add(catalog.group_machines(key.namespace, key.name) if catalog else ())
            self._add(self._cache.find(GROUP, BY_PEER, f"{key.namespace}/{key.name}"))

    def _address_changed(self, old: Stored | None, new: Stored | None) -> None:
        """Look at the machines that have or had the address, and at those that wait for one."""
        for stored in (old, new):
            if stored is not None and isinstance(stored.resource, VMAddress):
                self._add(self._cache.find(MACHINE, "uid", stored.resource.spec.holder.uid))
                if old is None or new is None:
                    self.switch_ports_changed(stored.resource.spec.switch)
        if new is None and old is not None and isinstance(old.resource, VMAddress):
            on_switch = self._cache.find(MACHINE, BY_SWITCH, old.resource.spec.switch)
            self._add(machine for machine in on_switch if self._waits_for_port(machine))

    def _waits_for_port(self, machine: Stored) -> bool:
        """Say whether a card of the machine is not plugged in yet, such as for want of an address."""
        vm, network = machine.resource, self._context.network if self._context else None
        if network is None or not isinstance(vm, VirtualMachine):
            return False
        return len(network.ports_of(machine.uid)) < sum(1 for _ in switched(vm))

    def _machine_object_changed(self, old: Stored | None, new: Stored | None) -> None:
        before, after = self._concerns(old), self._concerns(new)
        if before != after:
            for key in before | after:
                self.queue.add(key)
        for uid in {stored.uid for stored in (old, new) if stored is not None}:
            self._add(self._cache.find(DISK, BY_USER, uid))
            self._add(self._cache.find(ADDRESS, BY_HOLDER, uid))
        if old is not None and new is not None and reserved(old) != reserved(new):
            self.queue.add(Key(NODE, "", bound_node(new)))
        if room_may_change(old, new):
            self._room_changed()
        if new is None and old is not None:
            if self._context and self._context.network:
                self._context.network.drop_ports(old.uid)
            state = self._context.fleet.node(bound_node(old)) if self._context else None
            if state:
                state.forget(old.uid)

    def _concerns(self, machine: Stored | None) -> set[Key]:
        """Return the node and the images whose status counts this machine."""
        if machine is None:
            return set()
        keys = {Key(IMAGE, *reference.split("/", 1)) for reference in named_images(machine)}
        keys |= {image.key for uid in backing_images(machine) for image in self._cache.find(IMAGE, "uid", uid)}
        if node := bound_node(machine):
            keys.add(Key(NODE, "", node))
        return keys

    def _room_changed(self) -> None:
        """Look soon at the machines that wait for room."""
        self.queue.add_after(UNPLACED, UNPLACED_DELAY_SECONDS)

    def _add(self, found: Iterable[Stored]) -> None:
        for stored in found:
            self.queue.add(stored.key)
