"""Give vCPUs and memory to a running guest, and ask for them back. Everything here blocks."""

import logging
import time
from typing import Final

import libvirt
import libvirt_qemu
from lxml import etree

from virtfleet_node.core.actions import DomainAction
from virtfleet_node.core.compute_actions import (
    AttachDimm,
    DetachDimm,
    PlugVcpus,
    RequestMemory,
    SetBalloon,
    SetGuestVcpus,
    UnplugVcpus,
)
from virtfleet_node.core.desired.element import parse
from virtfleet_node.core.desired.memory import build_dimm_xml
from virtfleet_node.core.tcg_cache import has_room
from virtfleet_node.hypervisor.calls import AGENT_SECONDS

_LOG = logging.getLogger(__name__)

_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.2
"""A guest knows a vCPU that was plugged some 40 ms later; until then its agent cannot bring it online."""

_HELD: Final = frozenset({libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_OPERATION_FAILED})
"""What libvirt says when the guest has not let go of a vCPU."""

_KIBIBYTE: Final = 1 << 10
_DEFAULT_CACHE_KIB: Final = 1 << 20


def plug_vcpus(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Plug vCPUs, never take any away: the guest may have got more meanwhile. Not while it would end QEMU."""
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE
    if not isinstance(action, PlugVcpus) or domain.vcpusFlags(live) >= action.count:
        return
    if _has_room(domain, action.count):
        domain.setVcpusFlags(action.count, live)
    else:
        _LOG.warning("Leaving vCPUs for whose code there is no room", extra={"domain": domain.name()})


def _has_room(domain: libvirt.virDomain, count: int) -> bool:
    xml = parse(domain.XMLDesc(0))
    if xml.get("type") != "qemu":
        return True
    info: str = libvirt_qemu.qemuMonitorCommand(domain, "info jit", libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    cache = int(xml.findtext("features/tcg/tb-cache", str(_DEFAULT_CACHE_KIB))) // _KIBIBYTE
    return has_room(info, cache, int(xml.findtext("vcpu", "1")), count)


def unplug_vcpus(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Ask the guest to let go of vCPUs; libvirt waits five seconds for each, and may then be told later."""
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE
    if not isinstance(action, UnplugVcpus) or domain.vcpusFlags(live) <= action.count:
        return
    try:
        domain.setVcpusFlags(action.count, live)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _HELD:
            raise
        _LOG.info("Leaving vCPUs that the guest holds", extra={"domain": domain.name(), "reason": str(error)})


def set_guest_vcpus(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Have the agent bring vCPUs online, or turn them off. What it does not do is seen, and asked for again."""
    if not isinstance(action, SetGuestVcpus):
        return
    domain.agentSetResponseTimeout(AGENT_SECONDS)
    for last in (*(False,) * (_TRIES - 1), True):
        try:
            domain.setVcpusFlags(action.count, libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_VCPU_GUEST)
        except libvirt.libvirtError as error:
            unheard = error.get_error_code() in {libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED}
            if last or unheard:
                _LOG.info("Leaving vCPUs to be asked for again", extra={"domain": domain.name(), "reason": str(error)})
                return
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def request_memory(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Change the request in the device's own description: libvirt refuses one in which anything else differs."""
    xml = parse(domain.XMLDesc(0))
    device = xml.find("devices/memory[@model='virtio-mem']")
    if not isinstance(action, RequestMemory) or device is None:
        return
    requested = device.find("target/requested")
    if requested is not None:
        requested.text, requested.attrib["unit"] = str(action.size_bytes // _KIBIBYTE), "KiB"
        domain.updateDeviceFlags(etree.tostring(device, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def set_balloon(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Tell the balloon what to leave to the guest, of its memory and DIMMs: virtio-mem is not QEMU's to count here."""
    if isinstance(action, SetBalloon):
        domain.setMemoryFlags(action.level_bytes // _KIBIBYTE, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def attach_dimm(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Attach a DIMM."""
    if isinstance(action, AttachDimm):
        domain.attachDeviceFlags(build_dimm_xml(action.size_bytes), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def detach_dimm(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Ask the guest to let go of a DIMM: it takes the memory offline when it can, and an event tells."""
    xml = parse(domain.XMLDesc(0))
    aliases = {found.get("name") for found in xml.findall("devices/memory/alias")}
    if isinstance(action, DetachDimm) and action.alias in aliases:
        domain.detachDeviceAlias(action.alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
