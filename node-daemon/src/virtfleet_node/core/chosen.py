"""A device of the host that was chosen for a machine, as it is kept in the domain's metadata."""

import uuid
from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.device import GpuMode

_NAMESPACE: Final = uuid.UUID("6f3c1c0e-3f0b-5b5e-9a55-0d2f0c9d7a41")
"""Of the UUIDs of mediated devices; drawn once, and never changed."""

_MAX_COMPANIONS: Final = 7  # a PCI slot has eight functions


class ChosenDevice(Document):
    """What a machine gets for one of its devices."""

    name: str
    device_class: str = ""
    mode: GpuMode = GpuMode.PASSTHROUGH
    address: str
    """PCI address, or libvirt's name of what has none; with MEDIATED that of the device that is divided."""
    companions: Annotated[tuple[str, ...], Field(max_length=_MAX_COMPANIONS)] = ()
    """Further functions of the same card and IOMMU group, which go to the guest with it."""
    mediated_type: str = ""
    mediated_uuid: str = ""

    @property
    def is_mediated(self) -> bool:
        """Tell whether it is a part of a device."""
        return self.mode is GpuMode.MEDIATED

    @property
    def whole(self) -> Iterator[str]:
        """Yield the addresses of the devices that it takes as a whole."""
        if not self.is_mediated:
            yield from (self.address, *self.companions)

    @property
    def identity(self) -> str:
        """Return what tells users which device it is: PCI address, or UUID of a mediated one."""
        return self.mediated_uuid if self.is_mediated else self.address


def derive_uuid(uid: str, name: str) -> str:
    """Return the UUID of a machine's mediated device: the same at every start."""
    return str(uuid.uuid5(_NAMESPACE, f"{uid}/{name}"))
