"""IPv6 frames, DHCP and tags, with any lie in them that a hostile guest may tell."""

import struct
from ipaddress import IPv6Address

from frames import ethernet, mac_bytes, udp_frame

ALL_NODES = "ff02::1"
ALL_NODES_MAC = "33:33:00:00:00:01"
_IPV6, _VLAN, _UDP, _ICMPV6 = 0x86DD, 0x8100, 17, 58
_ROUTER_ADVERTISEMENT, _NEIGHBOR_ADVERTISEMENT = 134, 136
_OVERRIDE = 0x20000000
_TARGET_LINK_LAYER, _SOURCE_LINK_LAYER, _PREFIX = 2, 1, 3


def link_local(mac: str) -> str:
    """Return the address that a card makes of its MAC address (RFC 4291, appendix A)."""
    raw = mac_bytes(mac)
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]))


def udp6_frame(
    macs: tuple[str, str], addresses: tuple[str, str], ports: tuple[int, int] = (7000, 7000), payload: bytes = b"probe"
) -> bytes:
    """Return an IPv6 UDP packet in a frame; every pair is source, then target."""
    segment = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    return _packet(macs, addresses, _UDP, segment, checksum_at=6, hops=64)


def neighbor_advertisement(macs: tuple[str, str], addresses: tuple[str, str], claim: tuple[str, str]) -> bytes:
    """Return an unsolicited advertisement: `claim` is the MAC and the address that it says belong together."""
    body = struct.pack("!BBHI", _NEIGHBOR_ADVERTISEMENT, 0, 0, _OVERRIDE) + IPv6Address(claim[1]).packed
    body += struct.pack("!BB", _TARGET_LINK_LAYER, 1) + mac_bytes(claim[0])
    return _packet(macs, addresses, _ICMPV6, body, checksum_at=2, hops=255)


def router_advertisement(mac: str, source: str, prefix: str) -> bytes:
    """Return an advertisement of a router that hands out a prefix, to all nodes."""
    body = struct.pack("!BBHBBHII", _ROUTER_ADVERTISEMENT, 0, 0, 64, 0, 1800, 0, 0)
    body += struct.pack("!BB", _SOURCE_LINK_LAYER, 1) + mac_bytes(mac)
    body += struct.pack("!BBBBIII", _PREFIX, 4, 64, 0xC0, 86400, 14400, 0) + IPv6Address(prefix).packed
    return _packet((mac, ALL_NODES_MAC), (source, ALL_NODES), _ICMPV6, body, checksum_at=2, hops=255)


def dhcp_offer(macs: tuple[str, str], addresses: tuple[str, str], mark: bytes) -> bytes:
    """Return an offer of a DHCP server; addresses are the server's and the one that it offers."""
    server = bytes(map(int, addresses[0].split(".")))
    offered = bytes(map(int, addresses[1].split(".")))
    head = struct.pack("!BBBBIHH", 2, 1, 6, 0, 0x1234, 0, 0x8000) + bytes(4) + offered + server + bytes(4)
    options = b"\x63\x82\x53\x63" + bytes([53, 1, 2, 54, 4]) + server + bytes([255])
    body = head + mac_bytes(macs[1]) + bytes(10) + mark.ljust(192, b"\0") + options
    return udp_frame((macs[0], "ff:ff:ff:ff:ff:ff"), (addresses[0], "255.255.255.255"), (67, 68), body)


def tagged(vlan: int, frame: bytes) -> bytes:
    """Return a frame with an 802.1Q tag."""
    return frame[:12] + struct.pack("!HH", _VLAN, vlan) + frame[12:]


def _packet(
    macs: tuple[str, str], addresses: tuple[str, str], protocol: int, body: bytes, *, checksum_at: int, hops: int
) -> bytes:
    source, target = (IPv6Address(address).packed for address in addresses)
    pseudo = source + target + struct.pack("!IxxxB", len(body), protocol)
    body = body[:checksum_at] + _checksum(pseudo + body) + body[checksum_at + 2 :]
    header = struct.pack("!IHBB", 6 << 28, len(body), protocol, hops) + source + target
    return ethernet(macs[1], macs[0], _IPV6, header + body)


def _checksum(content: bytes) -> bytes:
    content += bytes(len(content) % 2)
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
