"""The hypervisor as the agent sees it: read, execute, and be told that something happened."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import libvirt

from virtfleet_node.core.actions import DomainAction
from virtfleet_node.core.compute_actions import SetGuestVcpus
from virtfleet_node.core.demand import CpuCounters
from virtfleet_node.core.desired.domain import build_placeholder_xml
from virtfleet_node.core.desired.guest import DomainType, HostFacts
from virtfleet_node.core.desired.identity import parse_domain_name
from virtfleet_node.core.disk_io import DiskIo
from virtfleet_node.core.errors import UnavailableError
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.numa.pin import Pin
from virtfleet_node.core.observed import ObservedDomain
from virtfleet_node.core.ports import ConsoleStream, DisplayStream
from virtfleet_node.core.record import Stored
from virtfleet_node.core.traffic import Traffic
from virtfleet_node.hypervisor import backup, commit, cpu, execute, node_devices, observe, pull, snapshot, warm
from virtfleet_node.hypervisor.agent_facts import read_guest_facts, read_guest_vcpus
from virtfleet_node.hypervisor.calls import CALL_SECONDS, Calls
from virtfleet_node.hypervisor.connection import Connection
from virtfleet_node.hypervisor.console import Console, open_stream
from virtfleet_node.hypervisor.disk_io import read_disk_io
from virtfleet_node.hypervisor.display import Display, open_display
from virtfleet_node.hypervisor.listener import Listener
from virtfleet_node.hypervisor.phantoms import LibvirtdState
from virtfleet_node.hypervisor.pins import pin, read_cpu_seconds
from virtfleet_node.hypervisor.probe import read_host_facts
from virtfleet_node.hypervisor.snapshot import Taken
from virtfleet_node.hypervisor.traffic import read_traffic

_CAPTURE_THREADS = 4
"""libvirtd works on five calls of one client at a time, and each capture is one for as long as memory is written."""

_CAPTURE_SECONDS = 6 * 3600.0
"""A terabyte is written in three hours at 100 MB/s."""

_AGENT_THREADS = 2
"""Guests that do not answer hold up other guests' facts, and nothing else."""

_MOVE_SECONDS = 900.0
"""The kernel copies a guest's memory from one cell to another within the call: 130 MiB/s under emulation, GiBs else."""

_WEIGHT_SECONDS = 3.0
"""It takes 2 ms, unless something else holds the domain: then others are not kept waiting for long."""

_FREEZE_SECONDS = 180.0
"""A freeze and a thaw each wait up to 30 s for another question to the same agent, and then twice AGENT_SECONDS.

A call with a freeze is never given up early: the guest would be frozen behind our back after it was told to go on.
"""

_START_SECONDS = 120.0
"""A start is never given up early: libvirt would finish it behind our back."""


_LOAD_SECONDS = 3600.0
"""The memory is read from the disk, and perhaps uncompressed, within the call: some 200 MB/s."""


@dataclass(frozen=True)
class Versions:
    """Versions of what runs on the node."""

    libvirt: str
    qemu: str


class Hypervisor:
    """libvirtd."""

    def __init__(self, uri: str, state: LibvirtdState | None = None) -> None:
        """Take libvirt's URI; `state` is what that libvirtd keeps of running domains, the system's by default."""
        self._calls = Calls()
        self._agent_calls = Calls(_AGENT_THREADS, "guest-agent")
        self._capture_calls = Calls(_CAPTURE_THREADS, "capture")
        self._state = state or LibvirtdState()
        self._connection = Connection(uri, self._calls, self._state)

    @property
    def connected(self) -> bool:
        """Tell whether libvirtd answers as far as is known."""
        return self._connection.alive

    async def start(self, listener: Listener) -> None:
        """Connect, waiting until libvirtd answers."""
        await self._connection.start(listener)

    async def stop(self) -> None:
        """Let libvirtd go; guests run on."""
        await self._connection.stop()
        self._calls.close()
        self._agent_calls.close()
        self._capture_calls.close()

    async def read_facts(self, directory: Path) -> HostFacts:
        """Return the domain type that works here, found out by trying."""
        connect = self._connection.get()
        return await self._calls.run(lambda: read_host_facts(connect, directory))

    async def read_versions(self) -> Versions:
        """Return libvirt's and QEMU's versions."""
        connect = self._connection.get()
        return await self._calls.run(
            lambda: Versions(_version(connect.getLibVersion()), _version(connect.getVersion()))
        )

    async def list_uids(self) -> frozenset[str]:
        """Return the UIDs of the machines that have a domain."""
        connect = self._connection.get()
        domains = await self._calls.run(lambda: connect.listAllDomains(0))
        return frozenset(uid for domain in domains if (uid := parse_domain_name(domain.name())) is not None)

    async def read(self, uid: str) -> ObservedDomain:
        """Return a machine's domain as it is."""
        connect = self._connection.get()
        return await self._calls.run(lambda: observe.read_domain(connect, uid))

    async def read_all(self) -> dict[str, ObservedDomain]:
        """Return all machines' domains as they are."""
        connect = self._connection.get()
        return await self._calls.run(lambda: _read_all(connect))

    async def define_placeholder(self, stored: Stored, domain_type: DomainType) -> None:
        """Keep the document of a machine that has no domain yet; durable when this returns."""
        connect, xml = self._connection.get(), build_placeholder_xml(stored, domain_type)
        await self._calls.run(lambda: execute.define(connect, xml))

    async def write_stored(self, stored: Stored) -> None:
        """Keep document and record of a machine that has a domain; durable when this returns."""
        connect = self._connection.get()
        await self._calls.run(lambda: execute.write_stored(connect, stored))

    async def start_machine(self, xml: str, confirmed: Stored, *, paused: bool) -> None:
        """Define the domain from XML, start it, then keep `confirmed`."""
        connect = self._connection.get()
        await self._calls.run(lambda: execute.start(connect, xml, confirmed, paused=paused), _START_SECONDS)

    async def start_warm(
        self, start: warm.WarmStart, confirm: Callable[[], Awaitable[None]], confirmed: Stored
    ) -> None:
        """Start a guest from a save image, paused; `confirm` is awaited before `confirmed` is kept."""
        connect = self._connection.get()
        await self._calls.run(lambda: warm.start(connect, start), _LOAD_SECONDS)
        await confirm()
        await self._calls.run(lambda: execute.write_stored(connect, confirmed))

    async def set_clock(self, uid: str, now: datetime) -> bool:
        """Have a guest's agent set its clock; False when the agent says that it cannot."""
        connect = self._connection.get()
        return await self._agent_calls.run(lambda: warm.set_clock(connect, uid, now))

    async def set_machine_id(self, uid: str) -> str:
        """Have a guest's agent write the guest's own machine-id; return what it says when it cannot."""
        connect = self._connection.get()
        return await self._agent_calls.run(lambda: warm.set_machine_id(connect, uid))

    async def execute(self, uid: str, action: DomainAction) -> None:
        """Carry out one action on a domain; no error when it is so already."""
        connect = self._connection.get()
        calls = self._agent_calls if isinstance(action, SetGuestVcpus) else self._calls
        await calls.run(lambda: execute.execute(connect, uid, action), CALL_SECONDS)

    async def pin(self, uid: str, action: Pin) -> None:
        """Pin a running guest's threads and move its memory; NodeError when libvirt cannot."""
        connect = self._connection.get()
        await self._calls.run(lambda: pin(connect, uid, action), _MOVE_SECONDS)

    async def read_pid(self, uid: str) -> int | None:
        """Return the pid of a machine's QEMU; None when there is none."""
        return await self._calls.run(lambda: self._state.read_pid(uid))

    async def attach_device(self, uid: str, xml: str) -> None:
        """Give a running guest a device."""
        connect = self._connection.get()
        await self._calls.run(lambda: execute.attach_device(connect, uid, xml), CALL_SECONDS)

    async def change_medium(self, uid: str, xml: str) -> None:
        """Change the medium of a running guest's drive; ConflictError when the guest has locked it."""
        connect = self._connection.get()
        await self._calls.run(lambda: execute.change_medium(connect, uid, xml), CALL_SECONDS)

    async def read_node_devices(self) -> tuple[str, ...]:
        """Return libvirt's descriptions of the host's PCI and mediated devices."""
        connect = self._connection.get()
        return await self._calls.run(lambda: node_devices.read_node_devices(connect))

    async def make_mediated(self, address: str, kind: str, uuid: str) -> None:
        """Have a device's driver make a part of it; no error when it is there."""
        connect, parent = self._connection.get(), node_devices.build_name(address)
        await self._calls.run(lambda: node_devices.make_mediated(connect, parent, kind, uuid))

    async def remove_mediated(self, uuid: str) -> None:
        """Remove a part of a device; ConflictError while a guest has it."""
        connect = self._connection.get()
        await self._calls.run(lambda: node_devices.remove_mediated(connect, uuid))

    async def give_back(self, address: str) -> None:
        """Give a PCI device back to its host driver; ConflictError while a guest has it."""
        connect, name = self._connection.get(), node_devices.build_name(address)
        await self._calls.run(lambda: node_devices.give_back(connect, name))

    async def read_guest_facts(self, uid: str) -> GuestFacts:
        """Ask the guest agent; what it does not answer is left out."""
        connect = self._connection.get()
        return await self._agent_calls.run(lambda: read_guest_facts(connect, uid))

    async def read_guest_vcpus(self, uid: str) -> int | None:
        """Ask the guest agent how many vCPUs are online; None when it does not say."""
        connect = self._connection.get()
        return await self._agent_calls.run(lambda: read_guest_vcpus(connect, uid))

    async def read_traffic(self) -> dict[str, dict[str, Traffic]]:
        """Return what has passed through the cards of running guests, by machine and device of the node."""
        connect = self._connection.get()
        return await self._calls.run(lambda: read_traffic(connect))

    async def read_disk_io(self) -> dict[str, dict[str, DiskIo]]:
        """Return what running guests have read and written, by machine and target."""
        connect = self._connection.get()
        return await self._calls.run(lambda: read_disk_io(connect))

    async def read_cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time that running guests have had, by machine."""
        connect = self._connection.get()
        return await self._calls.run(lambda: read_cpu_seconds(connect))

    async def read_cpu_counters(self) -> dict[str, CpuCounters]:
        """Return what running guests have used of the host's CPUs."""
        connect = self._connection.get()
        return await self._calls.run(lambda: cpu.read_counters(connect))

    async def read_cpu_sets(self, uids: tuple[str, ...]) -> dict[str, frozenset[int]]:
        """Return the CPUs that guests may run on, of those that run."""
        connect = self._connection.get()
        return await self._calls.run(lambda: cpu.read_cpu_sets(connect, uids))

    async def read_cpu_weight(self, uid: str) -> int | None:
        """Return a guest's weight, None when it does not run."""
        connect = self._connection.get()
        return await self._calls.run(lambda: cpu.read_weight(connect, uid), _WEIGHT_SECONDS)

    async def write_cpu_weight(self, uid: str, weight: int) -> None:
        """Give a guest a weight, if it runs."""
        connect = self._connection.get()
        await self._calls.run(lambda: cpu.write_weight(connect, uid, weight), _WEIGHT_SECONDS)

    async def begin_backup(self, uid: str, files: Mapping[str, str], *, freeze: bool) -> object:
        """Begin to copy disks of a running guest, by their files, into other files that exist; return the job."""
        connect = self._connection.get()
        begin = partial(backup.begin_backup, connect, uid, files, freeze=freeze)
        await self._calls.run(begin, _FREEZE_SECONDS)
        return connect

    async def read_backup(self, uid: str, job: object) -> float | None:
        """Return the percentage that is copied, None when all is.

        Raises:
            ConflictError: it failed.
            UnavailableError: libvirtd was restarted meanwhile, and cannot be trusted to know how it ended.
        """
        connect = self._connection.get()
        if connect is not job:
            raise UnavailableError("libvirtd was restarted while disks were copied.")
        return await self._calls.run(lambda: backup.read_backup(connect, uid))

    async def abort_backup(self, uid: str) -> None:
        """End our copying of a guest's disks, if there is any."""
        connect = self._connection.get()
        await self._calls.run(lambda: backup.abort_backup(connect, uid))

    async def list_backups(self) -> tuple[str, ...]:
        """Return the machines whose disks we have QEMU copy."""
        connect = self._connection.get()
        return await self._calls.run(lambda: backup.list_backups(connect))

    async def take_snapshot(self, uid: str, files: Mapping[str, str], memory: str | None, *, freeze: bool) -> Taken:
        """Capture a running guest, see `snapshot.take`; takes as long as its memory is written.

        Raises:
            NodeError: it has failed, or what has become of it is not known.
        """
        connect = self._connection.get()
        call = partial(snapshot.take, connect, uid, files, memory, freeze=freeze)
        return await self._capture_calls.run(call, _CAPTURE_SECONDS)

    async def read_snapshot(self, uid: str) -> float | None:
        """Return the percentage of a guest's memory that is written; None when none is being written."""
        connect = self._connection.get()
        return await self._calls.run(lambda: snapshot.read_progress(connect, uid))

    async def abort_snapshot(self, uid: str) -> None:
        """End the capture of a running guest if there is one."""
        connect = self._connection.get()
        await self._calls.run(lambda: snapshot.abort(connect, uid))

    async def read_resident(self, uid: str) -> int:
        """Return how many bytes of the host's memory a running guest takes."""
        connect = self._connection.get()
        return await self._calls.run(lambda: snapshot.read_resident(connect, uid))

    async def begin_pull(self, uid: str, target: str) -> None:
        """Begin to pull the content of a disk's image into the disk of a running guest."""
        connect = self._connection.get()
        await self._calls.run(lambda: pull.begin_pull(connect, uid, target))

    async def read_pull(self, uid: str, target: str) -> float | None:
        """Return the percentage that is pulled, None when nothing is under way."""
        connect = self._connection.get()
        return await self._calls.run(lambda: pull.read_pull(connect, uid, target))

    async def abort_pull(self, uid: str, target: str) -> None:
        """End it where it is."""
        connect = self._connection.get()
        await self._calls.run(lambda: pull.abort_pull(connect, uid, target))

    async def add_layer(self, uid: str, target: str, file: Path) -> None:
        """Have a running guest write into this file, which is there and empty, above what its disk is now."""
        connect = self._connection.get()
        await self._calls.run(lambda: commit.add_layer(connect, uid, target, str(file)))

    async def begin_commit(self, uid: str, target: str, lower: Path, upper: Path, bytes_per_second: int) -> None:
        """Begin to write a layer of a running guest's disk into the one below it."""
        connect, files = self._connection.get(), (str(lower), str(upper))
        await self._calls.run(lambda: commit.begin_commit(connect, uid, target, *files, bytes_per_second))

    async def find_commit(self, uid: str) -> str | None:
        """Return the device name of a disk whose layers are being merged, None when there is none."""
        connect = self._connection.get()
        return await self._calls.run(lambda: commit.find_commit(connect, uid))

    async def read_commit(self, uid: str, target: str) -> float | None:
        """Return the percentage that is merged, None when nothing is under way."""
        connect = self._connection.get()
        return await self._calls.run(lambda: commit.read_commit(connect, uid, target))

    async def abort_commit(self, uid: str, target: str) -> None:
        """End it where it is."""
        connect = self._connection.get()
        await self._calls.run(lambda: commit.abort_commit(connect, uid, target))

    async def thaw(self, uid: str) -> None:
        """Let a guest's file systems go on that were frozen for a copy."""
        connect = self._connection.get()
        await self._calls.run(lambda: backup.thaw(connect, uid), _FREEZE_SECONDS)

    async def open_console(self, uid: str) -> ConsoleStream:
        """Open the serial console of a running guest; ConflictError when it does not run."""
        connect = self._connection.get()
        return Console(await self._calls.run(lambda: open_stream(connect, uid)))

    async def open_display(self, uid: str) -> DisplayStream:
        """Open the display of a running guest; ConflictError when it does not run, or was started without one."""
        connect = self._connection.get()
        return await Display.connect(await self._calls.run(lambda: open_display(connect, uid)))


def _read_all(connect: libvirt.virConnect) -> dict[str, ObservedDomain]:
    named = ((parse_domain_name(domain.name()), domain) for domain in connect.listAllDomains(0))
    return {uid: observe.observe_domain(domain) for uid, domain in named if uid is not None}


def _version(number: int) -> str:
    """Return libvirt's packed version number as text."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
