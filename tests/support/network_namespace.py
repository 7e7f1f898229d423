"""Sockets and captures inside another network namespace, without a process of their own.

A thread enters the namespace, makes the socket and ends; the socket stays in the namespace wherever it is used.
"""

import ctypes
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

_LIBC = ctypes.CDLL("libc.so.6", use_errno=True)
_CLONE_NEWNET = 0x40000000
_ALL_PROTOCOLS = 3  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING: what this host sends itself
_FRAME_BYTES = 65535


def socket_in(namespace: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Make a socket in a namespace of /run/netns."""
    made: list[socket.socket | Exception] = []

    def make() -> None:
        try:
            descriptor = os.open(Path("/run/netns", namespace), os.O_RDONLY)
            try:
                if _LIBC.setns(descriptor, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns to {namespace}")
            finally:
                os.close(descriptor)
            made.append(socket.socket(family, kind, protocol))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], Exception):
        raise made[0]
    return made[0]


class Capture:
    """The frames that arrive at a device, from the moment it is made. Close it, or use it in `with`.

    802.1Q tags are not among the bytes: the kernel strips them. `tcpdump` below shows them.
    """

    def __init__(self, namespace: str, device: str) -> None:
        self._socket = socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        self._socket.bind((device, _ALL_PROTOCOLS))
        self._socket.setblocking(False)  # noqa: FBT003 -- the socket module's own signature
        self.frames: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait(self, wanted: Callable[[bytes], object], seconds: float, count: int = 1) -> int:
        """Collect frames until `count` of them are wanted, or for that long; return how many are."""
        end = time.monotonic() + seconds
        while True:
            self._collect()
            found = sum(bool(wanted(frame)) for frame in self.frames)
            left = end - time.monotonic()
            if found >= count or left <= 0:
                return found
            select.select([self._socket], [], [], left)

    def _collect(self) -> None:
        while True:
            try:
                frame, sender = self._socket.recvfrom(_FRAME_BYTES)
            except BlockingIOError:
                return
            if sender[2] != _OUTGOING:
                self.frames.append(frame)


@contextmanager
def tcpdump(namespace: str, device: str, expression: str) -> Iterator[list[str]]:
    """Collect tcpdump's lines (with link headers and tags) of what crosses a device while the block runs.

    The list is complete when the block has ended.
    """
    command = ["ip", "netns", "exec", namespace, "tcpdump", "-lnnetv", "-i", device, "--immediate-mode", expression]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stderr.readline()
        while "listening on" not in said:
            assert said, "tcpdump ended"
            said = process.stderr.readline()
        try:
            yield lines
        finally:
            time.sleep(0.05)  # what has crossed already is printed; nothing tells when
            process.terminate()
            lines.extend(process.stdout.read().splitlines())
