"""What the daemon holds in memory of a machine. All of it can be rebuilt by looking."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from virtfleet_api.machine import CpuScheduling, Machine
from virtfleet_api.report import MachineReport
from virtfleet_node.core.actions import LongAction
from virtfleet_node.core.errors import ConflictError, NodeError, UnavailableError
from virtfleet_node.core.full_pool import Resumes
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import Asking, ShutdownRequests
from virtfleet_node.core.report import Standing
from virtfleet_node.core.restoring import Restoring


@dataclass
class Work:
    """A long action that goes on, or what it failed with."""

    action: LongAction
    about: str
    percent: int = 0
    task: "asyncio.Task[None] | None" = None
    error: NodeError | None = None
    told: bool = False
    """The error has been raised, and the action is begun anew after a while."""
    failures: int = 0
    """Times it had failed before."""

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.about} failed: {self.error}" if self.error else f"{self.about}: {self.percent}%."


@dataclass
class Entry:
    """One machine."""

    desired: Machine
    """As it is stored, without secrets."""
    report: MachineReport | None = None
    shutdown: ShutdownRequests = field(default_factory=ShutdownRequests)
    asked: dict[str, Asking] = field(default_factory=dict)
    """What the guest was asked for, see `Observed.asked`."""
    cards: dict[str, str] = field(default_factory=dict)
    """Names of the running guest's network cards, by the node's devices."""
    scheduling: CpuScheduling | None = None
    """What holds for the running guest's vCPUs; None when none runs."""
    vcpus: int = 1
    """Of the running guest."""
    paused_at: datetime | None = None
    resumes: Resumes = field(default_factory=Resumes)
    facts: GuestFacts = field(default_factory=GuestFacts)
    trouble: Standing | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while what is stored is read, changed and written."""
    work: Work | None = None
    copying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while disks of this machine are copied for another."""
    freezing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the guest is frozen, and while it is asked to go on."""
    readers: "set[asyncio.Task[None]]" = field(default_factory=set)
    """Those that read the files of this machine's disks; joined and ended under `lock`."""
    restoring: Restoring | None = None
    """A restore that has been begun: nothing else may work on the machine's disks, or remove that snapshot."""
    capturing: bool = False
    """The running guest is being captured: nothing of it can be changed meanwhile."""
    is_copied: bool = False
    """QEMU copies disks of the running guest."""
    wanted_by: tuple[str, ...] = ()

    @property
    def reported(self) -> MachineReport:
        """Return the report; UnavailableError while there is none."""
        if self.report is None:
            raise UnavailableError("The machine has not been looked at yet.")
        return self.report

    def check_same(self, machine: Machine) -> None:
        """Refuse a document of another machine under this UID (ConflictError)."""
        kept = self.desired
        if (kept.namespace, kept.name) != (machine.namespace, machine.name):
            raise ConflictError(
                f"UID {machine.uid} belongs to {kept.namespace}/{kept.name} on this node, not to "
                f"{machine.namespace}/{machine.name}."
            )

    async def end_readers(self) -> None:
        """Have nobody read the files of the disks any more, before they are changed; `lock` must be held."""
        readers = tuple(self.readers)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
