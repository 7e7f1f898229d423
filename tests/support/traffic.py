"""What gets through between two probes: single attempts, and streams that show when it begins and ends."""

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Self

from network_namespace import socket_in
from ovn_rig import Probe

PATIENCE_SECONDS = 1.0
"""How long an answer may take that shall come; one across nodes takes 2 ms on an idle machine."""

ECHO_REQUEST, ECHO_REQUEST6 = 8, 128
ECHO_REPLY, ECHO_REPLY6 = 0, 129


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp_reaches(source: Probe, address: str, port: int, seconds: float = PATIENCE_SECONDS) -> bool:
    """Tell whether a TCP connection can be made."""
    with socket_in(source.namespace, family_of(address), socket.SOCK_STREAM) as made:
        made.settimeout(seconds)
        with suppress(OSError):
            made.connect((address, port))
            return True
    return False


def udp_reaches(source: Probe, address: str, port: int, seconds: float = PATIENCE_SECONDS) -> bool:
    """Tell whether a datagram is answered; it is sent several times, since one may be lost."""
    with socket_in(source.namespace, family_of(address), socket.SOCK_DGRAM) as made:
        return _answered(made, (address, port), b"ask", lambda content: content == b"ask", seconds)


def echo_reaches(source: Probe, address: str, seconds: float = PATIENCE_SECONDS) -> bool:
    """Tell whether an ICMP echo request is answered."""
    version6 = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if version6 else socket.IPPROTO_ICMP
    identifier = os.urandom(2)
    body = bytes([ECHO_REQUEST6 if version6 else ECHO_REQUEST, 0, 0, 0]) + identifier + b"\0\1"
    if not version6:
        body = body[:2] + _checksum(body) + body[4:]
    reply = ECHO_REPLY6 if version6 else ECHO_REPLY
    skip = 0 if version6 else 20

    def is_reply(content: bytes) -> bool:
        return content[skip] == reply and content[skip + 4 : skip + 6] == identifier

    with socket_in(source.namespace, family_of(address), socket.SOCK_RAW, protocol) as made:
        return _answered(made, (address, 0), body, is_reply, seconds)


def _answered(made: socket.socket, target: tuple[str, int], content: bytes, wanted: object, seconds: float) -> bool:
    assert callable(wanted)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        with suppress(OSError):
            made.sendto(content, target)
        ready, _, _ = select.select([made], [], [], min(0.1, left))
        if ready:
            with suppress(OSError):
                if wanted(made.recv(2048)):
                    return True
    return False


def _checksum(content: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


@contextmanager
def answering(probe: Probe, *, tcp: tuple[int, ...] = (), udp: tuple[int, ...] = ()) -> Iterator[None]:
    """Answer on ports of a probe, over IPv4 and IPv6, while the block runs."""
    with ExitStack() as stack:
        for port in tcp:
            listener = _server(probe, socket.SOCK_STREAM, port)
            listener.listen(64)
            stack.callback(_shut, listener)
        sockets = [_server(probe, socket.SOCK_DGRAM, port) for port in udp]
        ended = threading.Event()
        thread = threading.Thread(target=_answer_datagrams, args=(sockets, ended))
        thread.start()
        stack.callback(_end, thread, ended, sockets)
        yield


def _server(probe: Probe, kind: socket.SocketKind, port: int) -> socket.socket:
    made = socket_in(probe.namespace, socket.AF_INET6, kind)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::", port))
    return made


def _shut(made: socket.socket) -> None:
    made.close()


def _answer_datagrams(sockets: list[socket.socket], ended: threading.Event) -> None:
    while not ended.is_set():
        for made in select.select(sockets, [], [], 0.05)[0] if sockets else ():
            with suppress(OSError):
                content, sender = made.recvfrom(2048)
                made.sendto(content, sender)
        if not sockets:
            ended.wait()


def _end(thread: threading.Thread, ended: threading.Event, sockets: list[socket.socket]) -> None:
    ended.set()
    thread.join()
    for made in sockets:
        made.close()


class Stream:
    """Datagrams from a probe to another, every few milliseconds; use it in `with`.

    Every time is of time.monotonic.
    """

    GAP_SECONDS = 0.005

    def __init__(self, source: Probe, target: Probe, address: str, port: int = 7000) -> None:
        self._address = (address, port)
        self._receiver = socket_in(target.namespace, family_of(address), socket.SOCK_DGRAM)
        self._receiver.bind(("::" if ":" in address else "0.0.0.0", port))  # noqa: S104 -- in a namespace of its own
        self._receiver.settimeout(0.1)
        self._sender = socket_in(source.namespace, family_of(address), socket.SOCK_DGRAM)
        self._ended = threading.Event()
        self.received: list[float] = []
        self._threads = [threading.Thread(target=act) for act in (self._send, self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._receiver.close()
        self._sender.close()

    def first_after(self, moment: float, seconds: float = 5.0) -> float:
        """Wait for a datagram that came after a moment; return how many seconds after."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.received and self.received[-1] > moment:
                return next(at for at in self.received if at > moment) - moment
            time.sleep(0.002)
        raise AssertionError(f"nothing arrived within {seconds} s")

    def last_after(self, moment: float, seconds: float = 5.0, quiet: float = 0.4) -> float:
        """Wait until nothing comes any more; return how many seconds after a moment the last came."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            last = self.received[-1] if self.received else moment
            if time.monotonic() - max(last, moment) > quiet:
                return max(0.0, last - moment)
            time.sleep(0.005)
        raise AssertionError(f"datagrams still arrive after {seconds} s")

    def _send(self) -> None:
        while not self._ended.wait(self.GAP_SECONDS):
            with suppress(OSError):
                self._sender.sendto(b"tick", self._address)

    def _receive(self) -> None:
        while not self._ended.is_set():
            with suppress(TimeoutError):
                self._receiver.recv(64)
                self.received.append(time.monotonic())
