"""Ethernet frames as bytes, with any lie in them that a hostile guest may tell."""

import struct
from ipaddress import IPv4Address

BROADCAST = "ff:ff:ff:ff:ff:ff"
_IPV4, _ARP, _UDP = 0x0800, 0x0806, 17


def ethernet(target: str, source: str, kind: int, payload: bytes) -> bytes:
    """Return a frame; `kind` is the EtherType."""
    return mac_bytes(target) + mac_bytes(source) + struct.pack("!H", kind) + payload


def udp_frame(
    macs: tuple[str, str], addresses: tuple[str, str], ports: tuple[int, int] = (7000, 7000), payload: bytes = b"probe"
) -> bytes:
    """Return an IPv4 UDP packet in a frame; every pair is source, then target."""
    source, target = (IPv4Address(address).packed for address in addresses)
    segment = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload  # checksum 0: none
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 1, 0, 64, _UDP, 0, source, target)
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return ethernet(macs[1], macs[0], _IPV4, header + segment)


def arp_frame(source_mac: str, claim: tuple[str, str], target: str, *, reply: bool = False) -> bytes:
    """Return a broadcast ARP frame: `claim` is the MAC and the address that it says belong together."""
    mac, address = mac_bytes(claim[0]), IPv4Address(claim[1]).packed
    body = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 2 if reply else 1) + mac + address
    return ethernet(BROADCAST, source_mac, _ARP, body + bytes(6) + IPv4Address(target).packed)


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
