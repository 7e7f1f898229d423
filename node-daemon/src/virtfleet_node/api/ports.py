"""What the server needs from the daemon behind it. The agent implements it."""

from typing import Protocol

from virtfleet_api.image import Image, ImageReport
from virtfleet_api.machine import Machine
from virtfleet_api.node_api import PoolList
from virtfleet_api.pool import PoolSet
from virtfleet_api.report import MachineReport, NodeReport
from virtfleet_node.core.ports import ConsoleStream


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

    async def put_pools(self, wanted: PoolSet) -> PoolList:
        """Have these pools beside those of the configuration file."""

    def node_report(self) -> NodeReport:
        """Return the inventory."""

    async def open_console(self, uid: str) -> ConsoleStream:
        """Open the serial console of a running guest; ConflictError when it does not run."""

    async def read_console_log(self, uid: str, max_bytes: int) -> bytes:
        """Return the end of what the guest wrote to its console."""
