"""The display of a machine: what a monitor would show, reached by VNC through the Kubernetes API."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from virtfleet_api.base import Model


class DisplayModel(StrEnum):
    """The graphics card, in libvirt's words."""

    VGA = "vga"
    VIRTIO = "virtio"


class Display(Model):
    """A display with keyboard and pointer."""

    model: Annotated[
        DisplayModel,
        Field(
            description="Graphics card. vga: known to every firmware, installer and system. virtio: VGA until the "
            "guest's driver (virtio-gpu) takes over; any resolution."
        ),
    ] = DisplayModel.VGA
