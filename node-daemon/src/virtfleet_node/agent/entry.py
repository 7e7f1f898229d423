"""What the daemon holds in memory of a machine. All of it can be rebuilt by looking."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from virtfleet_api.machine import Machine
from virtfleet_api.report import MachineReport
from virtfleet_node.core.full_pool import Resumes
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.observed import Asking, ShutdownRequests
from virtfleet_node.core.report import Standing


@dataclass
class Entry:
    """One machine."""

    desired: Machine
    """As it is stored, without secrets."""
    report: MachineReport | None = None
    shutdown: ShutdownRequests = field(default_factory=ShutdownRequests)
    asked: dict[str, Asking] = field(default_factory=dict)
    """What the guest was asked to let go of, by target."""
    paused_at: datetime | None = None
    resumes: Resumes = field(default_factory=Resumes)
    facts: GuestFacts = field(default_factory=GuestFacts)
    trouble: Standing | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while what is stored is read, changed and written."""
