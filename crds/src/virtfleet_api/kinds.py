"""The kinds of the API, for everything that treats them alike: CRDs, docs, watching."""

from typing import Final

from virtfleet_api.resource import Resource
from virtfleet_api.security_group import SecurityGroup
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_switch import VirtualSwitch
from virtfleet_api.vm_address import VMAddress
from virtfleet_api.vm_class import VMClass
from virtfleet_api.vm_disk import VMDisk
from virtfleet_api.vm_image import VMImage
from virtfleet_api.vm_node import VMNode
from virtfleet_api.vm_restore import VMRestore
from virtfleet_api.vm_snapshot import VMSnapshot
from virtfleet_api.vm_snapshot_schedule import VMSnapshotSchedule

KINDS: Final[tuple[type[Resource], ...]] = (
    VirtualMachine,
    VMImage,
    VMNode,
    VMClass,
    VMDisk,
    VirtualSwitch,
    SecurityGroup,
    VMAddress,
    VMSnapshot,
    VMRestore,
    VMSnapshotSchedule,
)
