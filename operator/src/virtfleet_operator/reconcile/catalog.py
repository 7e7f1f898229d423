"""The cache as the core looks at it: objects that parse, by name, and who uses them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from virtfleet_api.names import NODE_LABEL, SCHEDULE_LABEL
from virtfleet_api.security_group import SecurityGroup
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_switch import VirtualSwitch
from virtfleet_api.vm_address import VMAddress
from virtfleet_api.vm_class import VMClass
from virtfleet_api.vm_disk import VMDisk
from virtfleet_api.vm_image import VMImage
from virtfleet_api.vm_restore import VMRestore
from virtfleet_api.vm_snapshot import VMSnapshot
from virtfleet_operator.core.adoption import pending_adoptions
from virtfleet_operator.core.catalog import image_references
from virtfleet_operator.core.image_origins import is_made
from virtfleet_operator.core.network.address_name import address_name
from virtfleet_operator.core.network.cards import mac_of, switched
from virtfleet_operator.core.network.plans import peer_keys
from virtfleet_operator.core.network.topology import IpAddress
from virtfleet_operator.core.restores import ENDED
from virtfleet_operator.core.room import Room
from virtfleet_operator.core.schedule import schedule_label
from virtfleet_operator.core.snapshot_disks import pending_snapshot_disks
from virtfleet_operator.core.sources import pending_sources
from virtfleet_operator.kube.cache import Cache, IndexValues, Stored
from virtfleet_operator.kube.paths import Key

MACHINE: Final = "VirtualMachine"
IMAGE: Final = "VMImage"
NODE: Final = "VMNode"
CLASS: Final = "VMClass"
DISK: Final = "VMDisk"
SWITCH: Final = "VirtualSwitch"
GROUP: Final = "SecurityGroup"
ADDRESS: Final = "VMAddress"
SNAPSHOT: Final = "VMSnapshot"
SCHEDULE: Final = "VMSnapshotSchedule"
RESTORE: Final = "VMRestore"

BY_NODE: Final = "node"
BY_IMAGE: Final = "image"
BY_CLASS: Final = "class"
BY_BACKING: Final = "backing"
BY_SOURCE: Final = "source"
BY_DISK: Final = "disk"
BY_USER: Final = "user"
BY_SWITCH: Final = "switch"
BY_GROUP: Final = "group"
BY_MAC: Final = "mac"
BY_PEER: Final = "peer"
BY_HOLDER: Final = "holder"
BY_NAMESPACE: Final = "namespace"
BY_MACHINE: Final = "machine"
BY_SNAPSHOT: Final = "snapshot"
BY_LABEL: Final = "label"
BY_UNFINISHED: Final = "unfinished"
UNBOUND: Final = ""
"""The value of index `node` for machines that are on no node yet."""


def bound_node(stored: Stored) -> str:
    """Return the node a machine's label names, or nothing."""
    return stored.meta.labels.get(NODE_LABEL, UNBOUND)


def _nodes(stored: Stored) -> Iterable[str]:
    return (bound_node(stored),)


def named_images(stored: Stored) -> tuple[str, ...]:
    """Return the images that a machine names and needs, as namespace/name."""
    vm = stored.resource
    return tuple(map("/".join, image_references(vm))) if isinstance(vm, VirtualMachine) else ()


def backing_images(stored: Stored) -> tuple[str, ...]:
    """Return the UIDs of images that a machine's disks are backed by, whether its spec names them or not."""
    vm = stored.resource
    disks = vm.status.disks if isinstance(vm, VirtualMachine) else ()
    return tuple(dict.fromkeys(disk.backing for disk in disks if disk.backing))


def _sources(stored: Stored) -> Iterable[str]:
    """Return the machines, as namespace/name, that a machine has yet to copy disks of."""
    vm = stored.resource
    if not isinstance(vm, VirtualMachine):
        return ()
    return {f"{stored.key.namespace}/{reference.virtual_machine}" for _, _, reference in pending_sources(vm)}


def _image_sources(stored: Stored) -> Iterable[str]:
    """Return the machine, as namespace/name, that an image is still to be copied from."""
    image = stored.resource
    if not isinstance(image, VMImage) or image.spec.source.disk is None or is_made(image):
        return ()
    return (f"{stored.key.namespace}/{image.spec.source.disk.virtual_machine}",)


def image_snapshots(stored: Stored) -> tuple[str, ...]:
    """Return the VMSnapshot, as namespace/name, that an image is still to be copied from."""
    image = stored.resource
    if not isinstance(image, VMImage) or image.spec.source.snapshot is None or is_made(image):
        return ()
    return (f"{stored.key.namespace}/{image.spec.source.snapshot.name}",)


def named_disks(stored: Stored) -> Iterable[str]:
    """Return the VMDisks, as namespace/name, that a machine has yet to take over."""
    vm = stored.resource
    if not isinstance(vm, VirtualMachine):
        return ()
    return {f"{stored.key.namespace}/{reference.name}" for _, _, reference in pending_adoptions(vm)}


def _named_snapshots(stored: Stored) -> Iterable[str]:
    """Return the VMSnapshots, as namespace/name, that a machine's disks have yet to be made from."""
    vm = stored.resource
    if not isinstance(vm, VirtualMachine):
        return ()
    return {f"{stored.key.namespace}/{reference.name}" for _, _, reference in pending_snapshot_disks(vm)}


def _disk_nodes(stored: Stored) -> Iterable[str]:
    return (stored.resource.spec.node_name,) if isinstance(stored.resource, VMDisk) else ()


def _disk_users(stored: Stored) -> Iterable[str]:
    """Return the UID of the machine that takes a VMDisk over."""
    return (stored.status.user.uid,) if stored.status.user else ()


def named_switches(stored: Stored) -> Iterable[str]:
    """Return the switches that a machine's cards are on."""
    vm = stored.resource
    return {switch for _, _, switch in switched(vm)} if isinstance(vm, VirtualMachine) else ()


def named_groups(stored: Stored) -> Iterable[str]:
    """Return the security groups, as namespace/name, that a machine's cards name themselves."""
    vm = stored.resource
    if not isinstance(vm, VirtualMachine):
        return ()
    return {f"{stored.key.namespace}/{name}" for _, nic, _ in switched(vm) for name in nic.security_groups or ()}


def _macs(stored: Stored) -> Iterable[str]:
    """Return the MAC addresses of a machine's cards on switches, as switch/address."""
    vm = stored.resource
    return {f"{switch}/{mac_of(vm, nic)}" for _, nic, switch in switched(vm)} if isinstance(vm, VirtualMachine) else ()


def default_groups(stored: Stored) -> Iterable[str]:
    """Return the security groups, as namespace/name, that a switch's port groups name."""
    switch = stored.resource
    if not isinstance(switch, VirtualSwitch):
        return ()
    return {f"{named.namespace}/{named.name}" for group in switch.spec.port_groups for named in group.security_groups}


def _peers(stored: Stored) -> Iterable[str]:
    """Return the groups, as namespace/name, that a security group's rules name."""
    group = stored.resource
    return tuple(map("/".join, peer_keys(group))) if isinstance(group, SecurityGroup) else ()


def _holders(stored: Stored) -> Iterable[str]:
    """Return the UID of the machine that has an address."""
    return (stored.resource.spec.holder.uid,) if isinstance(stored.resource, VMAddress) else ()


def _address_switches(stored: Stored) -> Iterable[str]:
    return (stored.resource.spec.switch,) if isinstance(stored.resource, VMAddress) else ()


def _classes(stored: Stored) -> Iterable[str]:
    vm = stored.resource
    return (vm.spec.class_name,) if isinstance(vm, VirtualMachine) and vm.spec.class_name else ()


def _namespaces(stored: Stored) -> Iterable[str]:
    return (stored.key.namespace,)


def _captured_machines(stored: Stored) -> Iterable[str]:
    """Return the machine, as namespace/name, that a snapshot is of."""
    snapshot = stored.resource
    return (f"{stored.key.namespace}/{snapshot.spec.virtual_machine}",) if isinstance(snapshot, VMSnapshot) else ()


def _snapshot_nodes(stored: Stored) -> Iterable[str]:
    return (stored.status.node_name,) if stored.status.node_name else ()


def _schedule_labels(stored: Stored) -> Iterable[str]:
    """Return the label, as namespace/value, of the schedule that made a snapshot."""
    label = stored.meta.labels.get(SCHEDULE_LABEL)
    return (f"{stored.key.namespace}/{label}",) if label else ()


def label_of(schedule: Key) -> str:
    """Return the label, as namespace/value, of a schedule's snapshots."""
    return f"{schedule.namespace}/{schedule_label(schedule.name)}"


def _restored_snapshots(stored: Stored) -> Iterable[str]:
    """Return the snapshot, as namespace/name, of a restore."""
    restore = stored.resource
    return (f"{stored.key.namespace}/{restore.spec.snapshot}",) if isinstance(restore, VMRestore) else ()


def _put_back(stored: Stored) -> Iterable[str]:
    """Return the machine, as namespace/name, that a restore puts back."""
    restore = stored.resource
    name = restore.spec.target.virtual_machine if isinstance(restore, VMRestore) else None
    return (f"{stored.key.namespace}/{name}",) if name else ()


def _unfinished(stored: Stored) -> Iterable[str]:
    """Return the namespace of a restore that has not ended."""
    return () if stored.status.phase in ENDED else (stored.key.namespace,)


INDEXERS: Final[Mapping[str, Mapping[str, IndexValues]]] = {
    MACHINE: {
        BY_NODE: _nodes,
        BY_IMAGE: named_images,
        BY_BACKING: backing_images,
        BY_SOURCE: _sources,
        BY_DISK: named_disks,
        BY_SNAPSHOT: _named_snapshots,
        BY_CLASS: _classes,
        BY_SWITCH: named_switches,
        BY_GROUP: named_groups,
        BY_MAC: _macs,
        BY_NAMESPACE: _namespaces,
    },
    IMAGE: {BY_SOURCE: _image_sources, BY_SNAPSHOT: image_snapshots},
    DISK: {BY_NODE: _disk_nodes, BY_USER: _disk_users},
    SWITCH: {BY_GROUP: default_groups},
    GROUP: {BY_PEER: _peers},
    ADDRESS: {BY_HOLDER: _holders, BY_SWITCH: _address_switches},
    SNAPSHOT: {BY_MACHINE: _captured_machines, BY_NODE: _snapshot_nodes, BY_LABEL: _schedule_labels},
    SCHEDULE: {BY_NAMESPACE: _namespaces, BY_LABEL: lambda stored: (label_of(stored.key),)},
    RESTORE: {BY_SNAPSHOT: _restored_snapshots, BY_MACHINE: _put_back, BY_UNFINISHED: _unfinished},
}


class CacheCatalog:
    """Reads the cache for the core."""

    find_room: Callable[[str, Key], Room | None] | None = None
    """Looks up what a node has for a machine; not there before the nodes are."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def room(self, vm: VirtualMachine) -> Room | None:
        """Return what the machine's node has, None for a machine without a node, or a node that is not known."""
        node = vm.metadata.labels.get(NODE_LABEL)
        if node is None or self.find_room is None:
            return None
        return self.find_room(node, Key(MACHINE, vm.metadata.namespace, vm.metadata.name))

    def image(self, namespace: str, name: str) -> VMImage | None:
        """Return a VMImage that parses, or None."""
        stored = self._cache.get(Key(IMAGE, namespace, name))
        return stored.resource if stored and isinstance(stored.resource, VMImage) else None

    def machine(self, namespace: str, name: str) -> VirtualMachine | None:
        """Return a VirtualMachine that parses, or None."""
        stored = self._cache.get(Key(MACHINE, namespace, name))
        return stored.resource if stored and isinstance(stored.resource, VirtualMachine) else None

    def vm_class(self, name: str) -> VMClass | None:
        """Return a VMClass that parses, or None."""
        stored = self._cache.get(Key(CLASS, "", name))
        return stored.resource if stored and isinstance(stored.resource, VMClass) else None

    def vm_disk(self, namespace: str, name: str) -> VMDisk | None:
        """Return a VMDisk that parses, or None."""
        stored = self._cache.get(Key(DISK, namespace, name))
        return stored.resource if stored and isinstance(stored.resource, VMDisk) else None

    def disk_users(self, namespace: str, name: str) -> Sequence[str]:
        """Return the machines that name the VMDisk and have not taken it over yet."""
        return sorted(_names(self._cache.find(MACHINE, BY_DISK, f"{namespace}/{name}")))

    def class_of(self, vm: VirtualMachine) -> VMClass | None:
        """Return the VMClass that a machine names, or None."""
        return self.vm_class(vm.spec.class_name) if vm.spec.class_name else None

    def image_users(self, namespace: str, name: str) -> Sequence[str]:
        """Return the machines, of any namespace, that need the image."""
        return sorted(set(_names(self.image_machines(Key(IMAGE, namespace, name)))))

    def image_machines(self, key: Key) -> Iterable[Stored]:
        """Return the machines that use an image; one may be named twice."""
        yield from self._cache.find(MACHINE, BY_IMAGE, f"{key.namespace}/{key.name}")
        if (image := self._cache.get(key)) is not None:
            yield from self._cache.find(MACHINE, BY_BACKING, image.uid)

    def virtual_switch(self, name: str) -> VirtualSwitch | None:
        """Return a VirtualSwitch that parses, or None."""
        stored = self._cache.get(Key(SWITCH, "", name))
        return stored.resource if stored and isinstance(stored.resource, VirtualSwitch) else None

    def virtual_switches(self) -> Iterable[VirtualSwitch]:
        """Return every VirtualSwitch that parses."""
        found = (stored.resource for stored in self._cache.all(SWITCH))
        return [resource for resource in found if isinstance(resource, VirtualSwitch)]

    def switch_users(self, name: str) -> Sequence[str]:
        """Return the machines with a card on the switch."""
        return sorted(_names(self._cache.find(MACHINE, BY_SWITCH, name)))

    def security_group(self, namespace: str, name: str) -> SecurityGroup | None:
        """Return a SecurityGroup that parses, or None."""
        stored = self._cache.get(Key(GROUP, namespace, name))
        return stored.resource if stored and isinstance(stored.resource, SecurityGroup) else None

    def group_machines(self, namespace: str, name: str) -> Iterable[Stored]:
        """Return the machines that may have a card in the group: that name it, or whose switch does."""
        named = f"{namespace}/{name}"
        found = {stored.key: stored for stored in self._cache.find(MACHINE, BY_GROUP, named)}
        for switch in self._cache.find(SWITCH, BY_GROUP, named):
            found |= {s.key: s for s in self._cache.find(MACHINE, BY_SWITCH, switch.key.name)}
        return found.values()

    def group_users(self, namespace: str, name: str) -> Sequence[str]:
        """Return the machines with a card in the group."""
        return sorted(_names(self._cache.find(MACHINE, BY_GROUP, f"{namespace}/{name}")))

    def mac_users(self, switch: str, mac: str) -> Sequence[tuple[str, str]]:
        """Return (namespace, name) of the machines with a card of this MAC address on the switch."""
        found = self._cache.find(MACHINE, BY_MAC, f"{switch}/{mac}")
        return sorted((stored.key.namespace, stored.key.name) for stored in found)

    def address(self, switch: str, address: IpAddress) -> VMAddress | None:
        """Return the VMAddress of an address, or None."""
        stored = self._cache.get(Key(ADDRESS, "", address_name(switch, address)))
        return stored.resource if stored and isinstance(stored.resource, VMAddress) else None

    def snapshot(self, namespace: str, name: str) -> VMSnapshot | None:
        """Return a VMSnapshot that parses, or None."""
        stored = self._cache.get(Key(SNAPSHOT, namespace, name))
        return stored.resource if stored and isinstance(stored.resource, VMSnapshot) else None

    def machine_snapshots(self, namespace: str, name: str) -> Sequence[VMSnapshot]:
        """Return the VMSnapshots that parse and name the machine."""
        found = (stored.resource for stored in self._cache.find(SNAPSHOT, BY_MACHINE, f"{namespace}/{name}"))
        return [resource for resource in found if isinstance(resource, VMSnapshot)]

    def snapshot_restores(self, namespace: str, name: str) -> Sequence[str]:
        """Return the names of the VMRestores of the VMSnapshot that have not ended."""
        found = self._cache.find(RESTORE, BY_SNAPSHOT, f"{namespace}/{name}")
        return sorted(stored.key.name for stored in found if stored.status.phase not in ENDED)

    def unfinished_restores(self, namespace: str) -> Sequence[VMRestore]:
        """Return the VMRestores of a namespace that parse and have not ended."""
        found = (stored.resource for stored in self._cache.find(RESTORE, BY_UNFINISHED, namespace))
        return [resource for resource in found if isinstance(resource, VMRestore)]

    def node_machines(self, name: str) -> Sequence[str]:
        """Return the machines that are bound to the node."""
        return sorted(_names(self._cache.find(MACHINE, BY_NODE, name)))


def _names(machines: Iterable[Stored]) -> Iterable[str]:
    return (f"{stored.key.namespace}/{stored.key.name}" for stored in machines)
