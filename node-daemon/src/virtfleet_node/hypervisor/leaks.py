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
from virtfleet_node.core.desired.element import parse
from virtfleet_node.core.leaked_cards import LeakedCard, find_leaked_card, may_be_leaked_card, parse_children

_LOG = logging.getLogger(__name__)

_ANSWER_CHARACTERS: Final = 4 << 20
"""A node takes about 1 KiB."""


def remove_leaks(domain: libvirt.virDomain, xml: str, error: libvirt.libvirtError) -> bool:
    """Remove what keeps a disk or card from being attached; tell whether trying once more may help.

    `xml` is the <disk> or <interface> that was refused with `error`. A device that was left behind is asked for only:
    its guest must let go of it first.
    """
    device, message = parse(xml), str(error.get_error_message())
    file = _attribute(device, "source", "file") or _attribute(device, "source", "dev")
    alias = _attribute(device, "alias", "name")
    try:
        if device.tag == "interface" and may_be_leaked_card(message, alias):
            return _remove_card(domain, alias)
        if device.tag == "disk" and file and may_be_leaked(message):
            return _remove_nodes(domain, file, message)
    except ValueError as unreadable:
        extra = {"domain": domain.name(), "reason": str(unreadable)[:500]}
        _LOG.warning("QEMU's answer cannot be read", extra=extra)
    return False


def _remove_nodes(domain: libvirt.virDomain, file: str, message: str) -> bool:
    leaks = _find(domain, file, message)
    if leaks != Leaks():
        _tell(domain, devices=list(leaks.devices), nodes=list(leaks.nodes))
    for alias in leaks.devices:
        _ask(domain, "device_del", id=alias)
    for node in leaks.nodes:
        _ask(domain, "blockdev-del", **{"node-name": node})  # QEMU refuses for what is in use
    return bool(leaks.nodes)


def _remove_card(domain: libvirt.virDomain, alias: str) -> bool:
    devices = parse_children(_ask(domain, "qom-list", path="/machine/peripheral"))
    leaked = find_leaked_card(alias, _aliases(parse(domain.XMLDesc(0))), devices)
    if leaked != LeakedCard():
        _tell(domain, device=leaked.device, netdev=leaked.netdev)
    if leaked.device:
        _ask(domain, "device_del", id=leaked.device)
    if leaked.netdev:
        _ask(domain, "netdev_del", id=leaked.netdev)
    return bool(leaked.netdev)


def _find(domain: libvirt.virDomain, file: str, message: str) -> Leaks:
    """Look at QEMU first: what libvirt has come to know of since then is no leak."""
    nodes = parse_nodes(_ask(domain, "query-named-block-nodes", flat=True))
    devices = parse_devices(_ask(domain, "query-block"))
    live = parse(domain.XMLDesc(0))
    files = {found.get("file") or found.get("dev") or "" for found in live.findall("devices/disk/source")}
    return find_leaks(nodes, devices, Known(files, _aliases(live)), file, message)


def _aliases(live: etree._Element) -> set[str]:
    return {found.get("name", "") for found in live.findall("devices/*/alias")}


def _attribute(device: etree._Element, tag: str, name: str) -> str:
    found = device.find(tag)
    return "" if found is None else found.get(name, "")


def _tell(domain: libvirt.virDomain, **what: object) -> None:
    extra = {"domain": domain.name(), **what}
    _LOG.warning("Removing from QEMU what libvirtd has left behind", extra=extra)


def _ask(domain: libvirt.virDomain, command: str, **arguments: object) -> str:
    text = json.dumps({"execute": command, "arguments": arguments})
    answer: str = libvirt_qemu.qemuMonitorCommand(domain, text, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT)
    if len(answer) > _ANSWER_CHARACTERS:
        raise ValueError(f"QEMU's answer to {command} has {len(answer)} characters")
    return answer
