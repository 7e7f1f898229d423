"""What the core may look up while it decides: a read-only view of the operator's cache."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from virtfleet_api.security_group import SecurityGroup
from virtfleet_api.virtual_machine import Disk, ImageReference, VirtualMachine
from virtfleet_api.virtual_switch import VirtualSwitch
from virtfleet_api.vm_address import VMAddress
from virtfleet_api.vm_class import VMClass
from virtfleet_api.vm_disk import VMDisk
from virtfleet_api.vm_image import VMImage
from virtfleet_api.vm_restore import VMRestore
from virtfleet_api.vm_snapshot import VMSnapshot
from virtfleet_operator.core.network.topology import IpAddress
from virtfleet_operator.core.room import Room


class Catalog(Protocol):
    """Objects by name, and who names them. Users are given as "namespace/name"."""

    def image(self, namespace: str, name: str) -> VMImage | None:
        """Return a VMImage that parses, or None."""

    def machine(self, namespace: str, name: str) -> VirtualMachine | None:
        """Return a VirtualMachine that parses, or None."""

    def vm_class(self, name: str) -> VMClass | None:
        """Return a VMClass that parses, or None."""

    def vm_disk(self, namespace: str, name: str) -> VMDisk | None:
        """Return a VMDisk that parses, or None."""

    def disk_users(self, namespace: str, name: str) -> Sequence[str]:
        """Return the machines that name the VMDisk and have not taken it over yet."""

    def image_users(self, namespace: str, name: str) -> Sequence[str]:
        """Return the machines, of any namespace, that need the image."""

    def virtual_switch(self, name: str) -> VirtualSwitch | None:
        """Return a VirtualSwitch that parses, or None."""

    def virtual_switches(self) -> Iterable[VirtualSwitch]:
        """Return every VirtualSwitch that parses."""

    def switch_users(self, name: str) -> Sequence[str]:
        """Return the machines with a card on the switch."""

    def security_group(self, namespace: str, name: str) -> SecurityGroup | None:
        """Return a SecurityGroup that parses, or None."""

    def group_users(self, namespace: str, name: str) -> Sequence[str]:
        """Return the machines with a card in the group."""

    def mac_users(self, switch: str, mac: str) -> Sequence[tuple[str, str]]:
        """Return (namespace, name) of the machines with a card of this MAC address on the switch."""

    def address(self, switch: str, address: IpAddress) -> VMAddress | None:
        """Return the VMAddress of an address, or None."""

    def room(self, vm: VirtualMachine) -> Room | None:
        """Return what the machine's node has, None for a machine without a node, or a node that is not known."""

    def snapshot(self, namespace: str, name: str) -> VMSnapshot | None:
        """Return a VMSnapshot that parses, or None."""

    def machine_snapshots(self, namespace: str, name: str) -> Sequence[VMSnapshot]:
        """Return the VMSnapshots that parse and name the machine."""

    def snapshot_restores(self, namespace: str, name: str) -> Sequence[str]:
        """Return the names of the VMRestores of the VMSnapshot that have not ended."""

    def unfinished_restores(self, namespace: str) -> Sequence[VMRestore]:
        """Return the VMRestores of a namespace that parse and have not ended."""

    def node_machines(self, name: str) -> Sequence[str]:
        """Return the machines that are bound to the node."""


def image_key(vm: VirtualMachine, reference: ImageReference) -> tuple[str, str]:
    """Return (namespace, name) of the image that a machine names."""
    return reference.namespace or vm.metadata.namespace, reference.name


def is_independent(vm: VirtualMachine, disk: Disk) -> bool:
    """Tell whether a disk exists and needs no image any more, whatever its spec says it was made from."""
    return any(found.name == disk.name and found.backing is None for found in vm.status.disks)


def image_references(vm: VirtualMachine) -> tuple[tuple[str, str], ...]:
    """Return (namespace, name) of every image that a machine needs, each once."""
    images = [disk.source.image for disk in vm.spec.disks if disk.source.image and not is_independent(vm, disk)]
    named = [*images, *(disk.source.iso for disk in vm.spec.disks if disk.source.iso)]
    if vm.spec.kernel_boot:
        named.append(vm.spec.kernel_boot.image)
    return tuple(dict.fromkeys(image_key(vm, reference) for reference in named))
