"""Read the vCPUs and the memory of a running guest from its domain's XML."""

from typing import Final

from lxml import etree

from virtfleet_node.core.compute import AttachedMemory, AttachedVcpus, Dimm, MemoryDevice

_UNITS: Final = {"": 1 << 10, "b": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
"""libvirt gives sizes back in KiB."""

_DRIVERS: Final = frozenset({"kvm", "qemu"})


def parse_vcpus(xml: etree._Element) -> AttachedVcpus | None:
    """Return the vCPUs; None for a domain of the test driver, which has no guest."""
    found = xml.find("vcpu")
    if xml.get("type") not in _DRIVERS or found is None:
        return None
    ceiling = int(found.text or "1")
    return AttachedVcpus(int(found.get("current", ceiling)), ceiling, emulated=xml.get("type") == "qemu")


def parse_memory(xml: etree._Element) -> AttachedMemory | None:
    """Return the memory; None for a domain of the test driver.

    libvirt's <memory> counts all of a virtio-mem device, and <currentMemory> what the guest has of it.
    """
    if xml.get("type") not in _DRIVERS:
        return None
    device = _device(xml.find("devices/memory[@model='virtio-mem']"))
    dimms = tuple(_dimm(found) for found in xml.findall("devices/memory[@model='dimm']"))
    given, most = sum(dimm.size_bytes for dimm in dimms), device.size_bytes if device else 0
    boot = _size(xml, "memory") - most - given
    left = _size(xml, "currentMemory") - (device.current_bytes if device else 0)
    ceiling = xml.find("maxMemory")
    slots = 0 if ceiling is None else int(ceiling.get("slots", "0"))
    return AttachedMemory(
        boot_bytes=boot,
        balloon_bytes=max(0, boot + given - left),
        device=device,
        dimms=dimms,
        dimm_room_bytes=max(0, _size(xml, "maxMemory") - boot - most - given),
        free_slots=max(0, slots - len(dimms)),
    )


def _device(found: etree._Element | None) -> MemoryDevice | None:
    if found is None:
        return None
    words = ("size", "requested", "current", "block")
    return MemoryDevice(*(_size(found, f"target/{word}") for word in words))


def _dimm(found: etree._Element) -> Dimm:
    alias = found.find("alias")
    return Dimm("" if alias is None else alias.get("name", ""), _size(found, "target/size"))


def _size(parent: etree._Element, path: str) -> int:
    """Return a size in bytes; 0 for one that is not there."""
    found = parent.find(path)
    return 0 if found is None else int(found.text or "0") * _UNITS[found.get("unit", "")]
