"""What the servers need from the daemon behind them. The agent implements it, and the store of images the rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from virtfleet_api.image import Image, ImageReport, UploadState
from virtfleet_api.machine import Machine
from virtfleet_api.node_api import InterfaceList, PoolList
from virtfleet_api.node_network import NodeNetwork
from virtfleet_api.pool import PoolSet
from virtfleet_api.report import MachineReport, NetworkReport, NodeReport
from virtfleet_api.snapshot import MachineSnapshot, SnapshotReport
from virtfleet_node.core.ports import ConsoleStream, DisplayStream
from virtfleet_node.core.stored import ImageCopy


class Daemon(Protocol):
    """The daemon, as the server sees it. Every method may raise a NodeError, which becomes a Problem."""

    async def put_machine(self, machine: Machine) -> MachineReport:
        """Store what is wanted of a machine before answering; the work goes on after the answer."""

    def list_machines(self) -> tuple[MachineReport, ...]:
        """Return a report of each machine."""

    def get_machine(self, uid: str) -> MachineReport:
        """Return the report of a machine; NotFoundError."""

    async def delete_machine(self, uid: str) -> MachineReport:
        """Have a machine removed by the document that is stored; NotFoundError."""

    async def put_image(self, image: Image) -> ImageReport:
        """Take over what is wanted of an image."""

    def list_images(self) -> tuple[ImageReport, ...]:
        """Return a report of each image."""

    async def put_snapshot(self, wanted: MachineSnapshot) -> SnapshotReport:
        """Store that a machine is to be captured before answering, or remove what was captured."""

    def list_snapshots(self) -> tuple[SnapshotReport, ...]:
        """Return a report of each snapshot."""

    async def put_pools(self, wanted: PoolSet) -> PoolList:
        """Have these pools beside those of the configuration file."""

    async def put_network(self, wanted: NodeNetwork) -> NetworkReport:
        """Have the node's network so; durable when this returns."""

    def node_report(self) -> NodeReport:
        """Return the inventory."""

    async def list_interfaces(self, uid: str) -> InterfaceList:
        """Return the network cards of a machine with their traffic; NotFoundError."""

    async def open_console(self, uid: str) -> ConsoleStream:
        """Open the serial console of a running guest; ConflictError when it does not run."""

    async def read_console_log(self, uid: str, max_bytes: int) -> bytes:
        """Return the end of what the guest wrote to its console."""

    async def open_display(self, uid: str) -> DisplayStream:
        """Open the display of a running guest; ConflictError when it does not run, or has none."""


class Uploads(Protocol):
    """Takes the content of images. Every method may raise a NodeError, which becomes a Problem."""

    def upload_state(self, image_uid: str) -> UploadState:
        """Say how much of an upload is there; NotFoundError."""

    async def receive(
        self, image_uid: str, offset: int, total: int | None, chunks: AsyncIterator[bytes]
    ) -> UploadState:
        """Append a piece of an upload; `total` is the size of the file, if that is known."""

    async def finish_upload(self, image_uid: str, size_bytes: int, sha256: str) -> UploadState:
        """Have a complete upload checked and made an image."""


class Forwarder(Protocol):
    """Connects to TCP ports of guests. Every method may raise a NodeError, which becomes a Problem."""

    def open_forward(
        self, uid: str, port: int
    ) -> AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect to a port of a running guest for as long as the context lasts."""


class Copies(Protocol):
    """Gives copies of images to other nodes."""

    def open_copy(self, image_uid: str, token: str, *, initrd: bool = False) -> ImageCopy:
        """Return a file for a node that has the token of this image; NotFoundError."""
