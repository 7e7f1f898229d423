"""Telling what a file is that is no disk image, by its first and last bytes. Nothing here opens a file.

A raw disk has no magic of its own, so whatever another program, or QEMU's probing, would take for something else is not
accepted as one: it is a mistake at best.
"""

from typing import Final

TAIL_BYTES: Final = 512
"""As much as is looked at of the end of a file: where a fixed VHD and a DMG have their only header."""

_AT_START: Final = {
    b"KDMV": "VMDK",
    b"COWD": "VMDK",
    b"conectix": "VHD",
    b"vhdxfile": "VHDX",
    b"QED\0": "QED",
    b"LUKS\xba\xbe": "LUKS",
    b"OOOM": "cow",
    b"WithoutFreeSpace": "Parallels",
    b"WithouFreSpacExt": "Parallels",
    b"Bochs Virtual HD Image": "a Bochs disk",
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop": "a cloop image",
    b"\x1f\x8b": "gzip",
    b"\x1f\x9d": "compress",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"MSWIM\0\0\0": "a Windows image (WIM)",
}
_AT: Final = ((0x40, b"\x7f\x10\xda\xbe", "VDI"), (257, b"ustar", "a tar archive, as OVA files are"))
_AT_END: Final = {b"conectix": "VHD", b"koly": "DMG"}
_MARKUP: Final = ((b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"<?xml", "an XML document"))
_DESCRIPTOR_BYTES: Final = 2048  # as much as QEMU's vmdk_probe reads
_VMDK_VERSIONS: Final = (b"version=1", b"version=2", b"version=3")


def foreign_format(head: bytes, tail: bytes) -> str | None:
    """Return the name of what begins, or ends, like this; None for what may be a raw disk."""
    for magic, name in _AT_START.items():
        if head.startswith(magic):
            return name
    for offset, magic, name in _AT:
        if head[offset:].startswith(magic):
            return name
    for magic, name in _AT_END.items():
        if tail.startswith(magic):
            return name
    text = head[:_DESCRIPTOR_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, name in _MARKUP:
        if text[: len(start)].lower() == start:
            return name
    return "a VMDK descriptor" if _is_vmdk_descriptor(text) else None


def _is_vmdk_descriptor(text: bytes) -> bool:
    """Tell what QEMU's vmdk_probe tells: comments and blank lines, then the version."""
    if text.startswith(b"# Disk DescriptorFile"):
        return True
    for line in text.splitlines():
        word = line.strip()
        if word and not word.startswith(b"#"):
            return word.startswith(_VMDK_VERSIONS)
    return False
