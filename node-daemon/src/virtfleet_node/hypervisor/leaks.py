"""Take from QEMU what a libvirtd that died has left in it. Everything here blocks.

libvirt has no call for it, and a command to QEMU's monitor marks the domain as tainted: it is for failures alone.
"""

import json
import logging
from typing import Final

import libvirt
import libvirt_qemu
from lxml import etree

from virtfleet_node.core.block_nodes import Known, Leaks, find_leaks, may_be_leaked, parse_devices, parse_nodes

_LOG = logging.getLogger(__name__)

_ANSWER_CHARACTERS: Final = 4 << 20
"""A node takes about 1 KiB."""

_PARSER: Final = etree.XMLParser(resolve_entities=False, no_network=True)


def remove_leaks(domain: libvirt.virDomain, xml: str, error: libvirt.libvirtError) -> bool:
    """Remove what keeps a disk from being attached; tell whether trying once more may help.

    `xml` is the <disk> that was refused with `error`. A device that was left behind is asked for only: its guest must
    let go of it first.
    """
    message = str(error.get_error_message())
    source = etree.fromstring(xml, _PARSER).find("source")
    file = "" if source is None else source.get("file", "")
    if not file or not may_be_leaked(message):
        return False
    leaks = _find(domain, file, message)
    if leaks != Leaks():
        extra = {"domain": domain.name(), "devices": list(leaks.devices), "nodes": list(leaks.nodes)}
        _LOG.warning("Removing from QEMU what libvirtd has left behind", extra=extra)
    for alias in leaks.devices:
        _ask(domain, "device_del", id=alias)
    for node in leaks.nodes:
        _ask(domain, "blockdev-del", **{"node-name": node})  # QEMU refuses for what is in use
    return bool(leaks.nodes)


def _find(domain: libvirt.virDomain, file: str, message: str) -> Leaks:
    """Look at QEMU first: what libvirt has come to know of since then is no leak."""
    try:
        nodes = parse_nodes(_ask(domain, "query-named-block-nodes", flat=True))
        devices = parse_devices(_ask(domain, "query-block"))
    except ValueError as error:
        _LOG.warning("QEMU's answer cannot be read", extra={"domain": domain.name(), "reason": str(error)[:500]})
        return Leaks()
    live = etree.fromstring(domain.XMLDesc(0), _PARSER)
    files = {found.get("file", "") for found in live.findall("devices/disk/source")}
    aliases = {found.get("name", "") for found in live.findall("devices/*/alias")}
    return find_leaks(nodes, devices, Known(files, aliases), file, message)


def _ask(domain: libvirt.virDomain, command: str, **arguments: object) -> str:
    text = json.dumps({"execute": command, "arguments": arguments})
    answer: str = libvirt_qemu.qemuMonitorCommand(domain, text, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT)
    if len(answer) > _ANSWER_CHARACTERS:
        raise ValueError(f"QEMU's answer to {command} has {len(answer)} characters")
    return answer
