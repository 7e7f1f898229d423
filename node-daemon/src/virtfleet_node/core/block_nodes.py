"""QEMU's block nodes that libvirt has forgotten: what a libvirtd leaves behind that dies within an attach or a detach.

QEMU itself then holds the lock of the disk's file, and no later attach of that disk can get it.
"""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_REFUSALS: Final = ('Failed to get "', 'Failed to get shared "', "Duplicate nodes with node-name=")
"""What QEMU says to `blockdev-add` when a node has the file, or the name, already."""

_CLASH: Final = re.compile(r"node-name='(libvirt-\d+)-[a-z-]+'")
_NAME: Final = re.compile(r"(libvirt-\d+)-[a-z-]+")
"""libvirt numbers what it opens: libvirt-3-storage is a file, libvirt-3-format what is in it."""

_PERIPHERAL: Final = re.compile(r"/machine/peripheral/([^/]+)(?:/.*)?")
"""Where QEMU has the devices that have an id, which is libvirt's alias."""

_NODES: Final = 4096
"""A guest with thirty disks on images of images has some hundred."""


_AT_ONCE: Final = 64
"""What is left over goes when the attach is tried again."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class BlockNode(_Answer):
    """One of `query-named-block-nodes`."""

    name: str = Field(alias="node-name", default="")
    file: str = ""
    backing_file: str = ""


class _Inserted(_Answer):
    name: str = Field(alias="node-name", default="")


class BlockDevice(_Answer):
    """One of `query-block`."""

    qdev: str = ""
    inserted: _Inserted = _Inserted()

    @property
    def alias(self) -> str:
        """Return libvirt's name of the device; empty when it cannot be one of libvirt's."""
        found = _PERIPHERAL.fullmatch(self.qdev)
        return found[1] if found else ""


class _Nodes(_Answer):
    nodes: Annotated[tuple[BlockNode, ...], Field(alias="return", max_length=_NODES)]


class _Devices(_Answer):
    devices: Annotated[tuple[BlockDevice, ...], Field(alias="return", max_length=_NODES)]


@dataclass(frozen=True)
class Leaks:
    """What is to be taken from QEMU: devices by id, or nodes by name, in this order."""

    devices: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


def parse_nodes(text: str) -> tuple[BlockNode, ...]:
    """Return the nodes of an answer to `query-named-block-nodes`; ValueError when it is none."""
    return TypeAdapter(_Nodes).validate_json(text).nodes


def parse_devices(text: str) -> tuple[BlockDevice, ...]:
    """Return the devices of an answer to `query-block`; ValueError when it is none."""
    return TypeAdapter(_Devices).validate_json(text).devices


def may_be_leaked(message: str) -> bool:
    """Tell whether QEMU refused an attach as it does when nodes were left behind."""
    return any(text in message for text in _REFUSALS)


@dataclass(frozen=True)
class Known:
    """What libvirt's live XML has."""

    files: AbstractSet[str]
    aliases: AbstractSet[str]


def find_leaks(
    nodes: Sequence[BlockNode], devices: Sequence[BlockDevice], known: Known, file: str, message: str
) -> Leaks:
    """Return what keeps `file` from being attached although libvirt knows nothing of it.

    A device that was left behind goes first, when its guest lets go of it: its nodes are leaks the next time. Whether
    a node without a device has another user, such as a job or a node above it, only QEMU can tell: it refuses
    `blockdev-del` then.
    """
    used = {device.inserted.name: device.alias for device in devices if device.inserted.name}
    busy = {_number(name) for name, alias in used.items() if not alias or alias in known.aliases}
    busy |= {_number(node.name) for node in nodes if node.file in known.files}
    clash = _CLASH.search(message)
    top = {_number(node.name) for node in nodes if node.file == file} | ({clash[1]} if clash else set())
    numbers = list(dict.fromkeys(number for number in sorted(top - busy) if number))
    found = tuple(alias for name, alias in sorted(used.items()) if _number(name) in numbers)
    if found:
        return Leaks(devices=found[:_AT_ONCE])
    return Leaks(nodes=tuple(islice(_names(nodes, numbers, busy), _AT_ONCE)))


def _names(nodes: Sequence[BlockNode], numbers: list[str], busy: AbstractSet[str]) -> Iterator[str]:
    """Yield the nodes with these numbers and those of their images: what is above before what is below."""
    done: set[str] = set()
    while numbers:
        done.update(numbers)
        here = [node for node in nodes if _number(node.name) in numbers]
        yield from sorted(node.name for node in here)  # a format comes before its storage
        images = {node.backing_file for node in here if node.backing_file}
        below = {_number(node.name) for node in nodes if node.file in images}
        numbers = sorted(number for number in below - busy - done if number)


def _number(name: str) -> str:
    """Return the part of a name that a file and what is in it share; empty when libvirt did not name the node."""
    found = _NAME.fullmatch(name)
    return found[1] if found else ""
