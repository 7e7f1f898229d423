"""Find out whether KVM really works: /dev/kvm may be there and yet every guest hang, as on some nested hosts.

Firmware runs even on some of those. So the throw-away guest is a kernel of a few hundred bytes (`probe_guest.S`) that
does what operating systems do first.
"""

import logging
import re
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

import libvirt
from lxml import etree

from virtfleet_node.core.desired.element import add
from virtfleet_node.core.desired.guest import DomainType, HostFacts

_LOG = logging.getLogger(__name__)

PROGRESS_SECONDS: Final = 5.0
"""The guest needs 0.3 s, even under emulation; where KVM does not really work it never gets to its end."""

_RENDER_NODES: Final = Path("/dev/dri")
_PREFIX: Final = "virtfleet-probe-"

_POLL_SECONDS: Final = 0.05
_OWNER: Final = re.compile(r"\+([0-9]{1,10}):\+[0-9]{1,10}")
"""What DAC's labels are: numbers of a user and a group."""

_MAX_MODEL: Final = 64  # characters, as `cpu.model` may have
_MAX_MODELS: Final = 512  # libvirt 9 knows 110 of x86
_KERNEL: Final = Path(__file__).with_name("probe_guest.bin")
_WORDS: Final = b"virtfleet: a guest runs"
"""What the guest says last."""


def read_host_facts(connect: libvirt.virConnect, directory: Path) -> HostFacts:
    """Return the domain type that works on this host, and QEMU's path. Blocks for up to PROGRESS_SECONDS."""
    if connect.getType() == "Test":
        return HostFacts(DomainType.TEST, None)
    facts = _read_facts(connect, DomainType.KVM)
    if facts.emulator is not None:
        _LOG.info("Trying KVM with a throw-away guest", extra={"emulator": facts.emulator})
        if kvm_works(connect, directory):
            return facts
        _LOG.warning("Using emulation, since a guest makes no progress with KVM", extra={"emulator": facts.emulator})
    return _read_facts(connect, DomainType.QEMU)


def destroy_probes(connect: libvirt.virConnect) -> None:
    """Destroy the throw-away guests that are left: a libvirtd that is killed forgets that they were to go. Blocks."""
    for domain in connect.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT):
        if domain.name().startswith(_PREFIX):
            with suppress(libvirt.libvirtError):  # it has ended just now
                domain.destroy()


def kvm_works(connect: libvirt.virConnect, directory: Path) -> bool:
    """Tell whether a guest under KVM does what operating systems do first."""
    return guest_progresses(connect, directory, DomainType.KVM)


def guest_progresses(connect: libvirt.virConnect, directory: Path, domain_type: DomainType) -> bool:
    """Tell whether a throw-away guest of this type gets to its end within PROGRESS_SECONDS."""
    name = f"{_PREFIX}{uuid.uuid4()}"
    log, kernel = directory / f"{name}.log", directory / f"{name}.bin"
    shutil.copyfile(_KERNEL, kernel)  # libvirt gives the file to QEMU's user for a while
    try:
        xml = _build_probe(name, kernel, log, domain_type)
        domain = connect.createXML(xml, libvirt.VIR_DOMAIN_START_AUTODESTROY)
        try:
            return _speaks(log)
        finally:
            with suppress(libvirt.libvirtError):  # libvirtd has died: what the guest said holds all the same
                domain.destroy()
    except libvirt.libvirtError as error:
        _LOG.info("The throw-away guest did not start", extra={"reason": str(error)})
        return False
    finally:
        log.unlink(missing_ok=True)
        kernel.unlink(missing_ok=True)


def _speaks(log: Path) -> bool:
    end = time.monotonic() + PROGRESS_SECONDS
    while time.monotonic() < end:
        with suppress(FileNotFoundError), log.open("rb") as file:
            if _WORDS in file.read(4096):
                return True
        time.sleep(_POLL_SECONDS)
    return False


def _build_probe(name: str, kernel: Path, log: Path, domain_type: DomainType) -> str:
    domain = etree.Element("domain", {"type": str(domain_type)})
    add(domain, "name", name)
    add(domain, "memory", "32", unit="MiB")
    system = add(domain, "os")
    add(system, "type", "hvm", machine="pc")
    add(system, "kernel", str(kernel))
    devices = add(domain, "devices")
    add(devices, "controller", type_="usb", model="none")
    serial = add(devices, "serial", type_="file")
    add(serial, "source", path=str(log))
    add(devices, "memballoon", model="none")
    return etree.tostring(domain, encoding="unicode")


def _read_facts(connect: libvirt.virConnect, domain_type: DomainType) -> HostFacts:
    """Return QEMU's path, the CPU models and the GPU that draws; no path when libvirt cannot use this type here."""
    try:
        text = connect.getDomainCapabilities(None, None, None, str(domain_type), 0)
    except libvirt.libvirtError:
        return HostFacts(domain_type, None)
    capabilities = etree.fromstring(text)
    return HostFacts(
        domain_type,
        capabilities.findtext("path"),
        cpu_models=read_cpu_models(capabilities, domain_type),
        qemu_user=read_qemu_user(etree.fromstring(connect.getCapabilities()), domain_type),
        render_node=_read_render_node(capabilities),
    )


def read_qemu_user(capabilities: etree._Element, domain_type: DomainType) -> int | None:
    """Return the number of the user that QEMU runs as; None where libvirt does not say."""
    models = (one for one in capabilities.findall("host/secmodel") if one.findtext("model") == "dac")
    labels = (one.findtext(f"baselabel[@type='{domain_type}']") for one in models)
    found = next((match for label in labels if (match := _OWNER.fullmatch(label or ""))), None)
    return int(found[1]) if found else None


def _read_render_node(capabilities: etree._Element) -> str:
    """Return the device by which the host's GPU draws; empty where there is none, or QEMU cannot use it."""
    displays = capabilities.findall("devices/graphics/enum[@name='type']/value")
    nodes = sorted(_RENDER_NODES.glob("renderD*")) if any(d.text == "egl-headless" for d in displays) else ()
    return str(nodes[0]) if nodes else ""


def read_cpu_models(capabilities: etree._Element, domain_type: DomainType) -> tuple[str, ...]:
    """Return what `cpu.model` may say beside host-model: the models that libvirt calls usable, and host-passthrough.

    Emulation has no host CPU to pass through, and gives QEMU's own default for it; see `core.desired.cpu`.
    """
    passes = capabilities.find("cpu/mode[@name='host-passthrough'][@supported='yes']") is not None
    found = capabilities.findall("cpu/mode[@name='custom'][@supported='yes']/model[@usable='yes']")
    named = sorted(model.text for model in found if model.text and len(model.text) <= _MAX_MODEL)
    through = ["host-passthrough"] if passes or domain_type is DomainType.QEMU else []
    return tuple(dict.fromkeys([*through, *named]))[:_MAX_MODELS]
