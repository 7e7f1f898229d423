"""Devices of the host that machines are given, by class."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.names import DNS_LABEL_PATTERN

DEVICE_CLASS_PATTERN: Final = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
"""A vendor's domain and a model, as Kubernetes names extended resources: "nvidia.com/A10"."""

PCI_ADDRESS_PATTERN: Final = r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]$"
"""Domain, bus, slot and function, as lspci -D prints them: "0000:81:00.0"."""

PCI_ID_PATTERN: Final = r"^[0-9a-f]{4}$"

PCI_CLASS_PATTERN: Final = r"^[0-9a-f]{2}([0-9a-f]{2}){0,2}$"

MEDIATED_TYPE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

DeviceClass = Annotated[
    str,
    Field(pattern=DEVICE_CLASS_PATTERN, max_length=127, description='Device class, such as "nvidia.com/A10".'),
]


class GpuMode(StrEnum):
    """How a machine gets a GPU."""

    PASSTHROUGH = "Passthrough"
    MEDIATED = "Mediated"
    VIRGL = "Virgl"


class Gpu(Model):
    """A GPU of the machine."""

    name: Annotated[
        str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Name, unique among the machine's devices.")
    ]
    device: Annotated[
        DeviceClass | None, Field(description='Class of the GPU, such as "nvidia.com/A10"; absent with Virgl.')
    ] = None
    mode: Annotated[
        GpuMode,
        Field(
            description="Passthrough: the whole GPU, or a virtual function of it. Mediated: a part of one, as its "
            "driver divides it. Virgl: QEMU's own GPU, whose commands the host's draws."
        ),
    ] = GpuMode.PASSTHROUGH


class HostDevice(Model):
    """A PCI device of the host, given to the machine."""

    name: Annotated[
        str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Name, unique among the machine's devices.")
    ]
    device: DeviceClass


class DeviceSelector(Model):
    """Devices of a node. Everything that is written must match."""

    vendor: Annotated[
        str | None, Field(pattern=PCI_ID_PATTERN, max_length=4, description='PCI vendor, such as "10de".')
    ] = None
    product: Annotated[
        str | None, Field(pattern=PCI_ID_PATTERN, max_length=4, description='PCI device, such as "2236".')
    ] = None
    pci_class: Annotated[
        str | None,
        Field(
            pattern=PCI_CLASS_PATTERN,
            max_length=6,
            description='PCI class or the beginning of one: "03" for displays, "0302" for 3D controllers.',
        ),
    ] = None
    address: Annotated[
        str | None,
        Field(pattern=PCI_ADDRESS_PATTERN, max_length=12, description='PCI address, such as "0000:81:00.0".'),
    ] = None
    mediated_type: Annotated[
        str | None,
        Field(
            pattern=MEDIATED_TYPE_PATTERN,
            max_length=64,
            description='Type of mediated devices that the driver makes, such as "nvidia-63".',
        ),
    ] = None


class DeviceClassRule(Model):
    """What a device class is made of."""

    device: DeviceClass
    selectors: Annotated[
        tuple[DeviceSelector, ...],
        Field(min_length=1, max_length=32, description="The class holds what any of them matches."),
    ]
