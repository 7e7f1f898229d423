"""The display: a graphics card, a pointer that knows where it is, and VNC that listens nowhere.

No port and no socket is open: libvirt hands QEMU one end of a connection at a time, and the daemon the other
(virDomainOpenGraphicsFD).
"""

from virtfleet_api.device import GpuMode
from virtfleet_node.core.desired.addresses import add_port
from virtfleet_node.core.desired.element import Element, add, devices
from virtfleet_node.core.desired.guest import DomainType, Guest
from virtfleet_node.core.places import DISPLAY, TABLET


def configure_display(domain: Element, guest: Guest) -> None:
    """Write the display, when the machine wants one; a GPU of QEMU's own that it has is what is shown then.

    Until the guest has a driver for the tablet, QEMU moves the PS/2 mouse that libvirt adds to every display.
    """
    model = guest.hardware.display
    if model is None or guest.facts.domain_type is DomainType.TEST:
        return
    parent = devices(domain)
    tablet = add(parent, "input", type_="tablet", bus="virtio")
    add_port(tablet, guest, TABLET)
    add(add(parent, "graphics", type_="vnc", sharePolicy="force-shared"), "listen", type_="none")
    if not any(device.mode is GpuMode.VIRGL for device in guest.hardware.devices):
        video = add(parent, "video")
        add(video, "model", type_=str(model), heads=1, primary="yes")
        add_port(video, guest, DISPLAY)
