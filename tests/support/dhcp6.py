"""A DHCPv6 client that asks once: BusyBox of Debian has none."""

import os
import socket
import struct
import time
from contextlib import suppress
from ipaddress import IPv6Address

from network_namespace import socket_in
from ovn_rig import Probe

_SOLICIT, _ADVERTISE = 1, 2
_CLIENT_ID, _IA_NA, _IA_ADDRESS, _DNS = 1, 3, 5, 23
_ALL_SERVERS = "ff02::1:2"


def solicit(probe: Probe, seconds: float = 5.0) -> str | None:
    """Return the address that a server offers; None when there is none."""
    transaction = os.urandom(3)
    identity = struct.pack("!HH", 3, 1) + bytes.fromhex(probe.mac.replace(":", ""))
    options = _option(_CLIENT_ID, identity) + _option(_IA_NA, struct.pack("!III", 1, 0, 0))
    with socket_in(probe.namespace, socket.AF_INET6, socket.SOCK_DGRAM) as made:
        made.bind(("::", 546))
        made.settimeout(0.5)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(OSError):
                made.sendto(bytes([_SOLICIT]) + transaction + options, (_ALL_SERVERS, 547))
                answer = made.recv(2048)
                if answer[0] == _ADVERTISE and answer[1:4] == transaction:
                    return _offered(answer[4:])
    return None


def _option(code: int, content: bytes) -> bytes:
    return struct.pack("!HH", code, len(content)) + content


def _offered(options: bytes) -> str | None:
    while options:
        code, size = struct.unpack("!HH", options[:4])
        content, options = options[4 : 4 + size], options[4 + size :]
        if code == _IA_NA:
            return _offered(content[12:])
        if code == _IA_ADDRESS:
            return str(IPv6Address(content[:16]))
    return None
