"""Carry out one action on a domain. Each succeeds when what it wants is so already. Everything here blocks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import libvirt
from lxml import etree

from virtfleet_api.names import METADATA_NAMESPACE
from virtfleet_node.core.actions import (
    Destroy,
    DetachCard,
    DetachDevice,
    DetachDisk,
    DomainAction,
    LimitDisk,
    Pause,
    RequestShutdown,
    ResizeDisk,
    Resume,
    SetLink,
    ShutdownMode,
    Undefine,
)
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
from virtfleet_node.core.desired.metadata import METADATA_PREFIX, build_metadata_xml, with_metadata
from virtfleet_node.core.limit_actions import LimitCard, LimitCpu
from virtfleet_node.core.limits import UNLIMITED
from virtfleet_node.core.record import Stored
from virtfleet_node.hypervisor import compute
from virtfleet_node.hypervisor.calls import AGENT_SECONDS
from virtfleet_node.hypervisor.leaks import remove_leaks
from virtfleet_node.hypervisor.observe import find_alias, find_card

_UNDEFINE: Final = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)

_HARMLESS: Final = frozenset({libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN})
"""What libvirt says when the guest is off, or gone, or in the wanted state already; the next look tells."""


def define(connect: libvirt.virConnect, xml: str) -> None:
    """Define a domain, or define it anew."""
    connect.defineXML(xml)


def start(connect: libvirt.virConnect, xml: str, confirmed: Stored, *, paused: bool) -> None:
    """Define the domain, start it, and keep that it was started."""
    domain = connect.defineXML(xml)
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)
    _set_metadata(domain, confirmed)


def write_stored(connect: libvirt.virConnect, stored: Stored) -> None:
    """Keep the document and record of a machine that is defined."""
    _set_metadata(connect.lookupByUUIDString(stored.desired.uid), stored)


def set_title(connect: libvirt.virConnect, uid: str, title: str) -> None:
    """Write the title that `virsh list --title` shows."""
    domain = connect.lookupByUUIDString(uid)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, title, None, None, libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def attach_device(connect: libvirt.virConnect, uid: str, xml: str) -> None:
    """Give a running guest a device, if need be after removing what an attach that was cut off has left in QEMU."""
    with _harmless():
        domain = connect.lookupByUUIDString(uid)
        try:
            domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            if not remove_leaks(domain, xml, error):
                raise
            domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def change_medium(connect: libvirt.virConnect, uid: str, xml: str) -> None:
    """Change the medium in a drive of a running guest, unless the guest has locked it."""
    with _harmless():
        connect.lookupByUUIDString(uid).updateDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def execute(connect: libvirt.virConnect, uid: str, action: DomainAction) -> None:
    """Carry out the action; what libvirt calls invalid in the domain's present state is left to the next look."""
    with _harmless():
        _STEPS[type(action)](connect.lookupByUUIDString(uid), action)


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _HARMLESS:
            raise


def _set_metadata(domain: libvirt.virDomain, stored: Stored) -> None:
    """Write to the persistent definition alone: what the running one says is never read.

    While the guest is captured libvirt refuses that, and takes a definition (seen with 9.0).
    """
    if _is_busy(domain):
        definition = parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE))
        domain.connect().defineXML(etree.tostring(with_metadata(definition, stored), encoding="unicode"))
        return
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        build_metadata_xml(stored),
        METADATA_PREFIX,
        METADATA_NAMESPACE,
        libvirt.VIR_DOMAIN_AFFECT_CONFIG,
    )


def _is_busy(domain: libvirt.virDomain) -> bool:
    """Tell whether a long job goes on in a running guest."""
    if domain.connect().getType() == "Test" or not domain.isActive():
        return False
    return bool(domain.controlInfo()[0] == libvirt.VIR_DOMAIN_CONTROL_JOB)


def _request_shutdown(domain: libvirt.virDomain, action: DomainAction) -> None:
    if domain.connect().getType() == "Test":
        domain.shutdown()  # the test driver knows no flags
    elif isinstance(action, RequestShutdown) and action.mode is ShutdownMode.AGENT:
        with suppress(libvirt.libvirtError):  # an agent that fails is one of several ways, the next is tried
            domain.agentSetResponseTimeout(AGENT_SECONDS)
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
    else:
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def _limit_disk(domain: libvirt.virDomain, action: DomainAction) -> None:
    if isinstance(action, LimitDisk):
        domain.setBlockIoTune(action.target, dict(action.tuning), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _limit_cpu(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Change the quotas. No vCPU may have more than the whole, at no moment: the whole is freed for that long."""
    if isinstance(action, LimitCpu):
        quota, live = action.quota, libvirt.VIR_DOMAIN_AFFECT_LIVE
        domain.setSchedulerParametersFlags({"global_quota": UNLIMITED}, live)
        domain.setSchedulerParametersFlags({"vcpu_period": quota.period, "vcpu_quota": quota.vcpu}, live)
        domain.setSchedulerParametersFlags({"global_period": quota.period, "global_quota": quota.total}, live)


def _resize_disk(domain: libvirt.virDomain, action: DomainAction) -> None:
    if isinstance(action, ResizeDisk):
        domain.blockResize(action.target, action.size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def _detach_disk(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Press the attention button of the disk's port: the guest lets go of it when it can, and an event tells."""
    if isinstance(action, DetachDisk) and (alias := find_alias(domain, action.target)):
        domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _detach_card(domain: libvirt.virDomain, action: DomainAction) -> None:
    if isinstance(action, DetachCard) and find_card(domain, action.alias) is not None:
        domain.detachDeviceAlias(action.alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _detach_device(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Ask the guest to let go; libvirt then gives the device back to its host driver."""
    if isinstance(action, DetachDevice):
        domain.detachDeviceAlias(action.alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def set_link(domain: libvirt.virDomain, action: DomainAction) -> None:
    """Pull a cable or plug it in, in the card's own description: libvirt refuses one in which anything else differs."""
    if isinstance(action, SetLink) and (card := find_card(domain, action.alias)) is not None:
        link = card.find("link")
        (etree.SubElement(card, "link") if link is None else link).set("state", action.state)
        domain.updateDeviceFlags(etree.tostring(card, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _limit_card(domain: libvirt.virDomain, action: DomainAction) -> None:
    if isinstance(action, LimitCard):
        limit = action.limit
        limits = {"inbound.average": limit.average, "inbound.peak": limit.peak, "inbound.burst": limit.burst}
        domain.setInterfaceParameters(action.device, limits, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _undefine(domain: libvirt.virDomain, _: DomainAction) -> None:
    domain.undefineFlags(0 if domain.connect().getType() == "Test" else _UNDEFINE)


_STEPS: Final[dict[type[DomainAction], Callable[[libvirt.virDomain, DomainAction], object]]] = {
    Pause: lambda domain, _: domain.suspend(),
    Resume: lambda domain, _: domain.resume(),
    RequestShutdown: _request_shutdown,
    Destroy: lambda domain, _: domain.destroy(),
    LimitCpu: _limit_cpu,
    LimitDisk: _limit_disk,
    ResizeDisk: _resize_disk,
    DetachDisk: _detach_disk,
    DetachDevice: _detach_device,
    DetachCard: _detach_card,
    SetLink: set_link,
    PlugVcpus: compute.plug_vcpus,
    UnplugVcpus: compute.unplug_vcpus,
    SetGuestVcpus: compute.set_guest_vcpus,
    RequestMemory: compute.request_memory,
    SetBalloon: compute.set_balloon,
    AttachDimm: compute.attach_dimm,
    DetachDimm: compute.detach_dimm,
    LimitCard: _limit_card,
    Undefine: _undefine,
}
