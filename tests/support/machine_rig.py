"""A node daemon without its server, on a real libvirtd: what tests of machines drive and look at."""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import libvirt

from prepared_images import PreparedImages
from virtfleet_api.image import ImageFormat, ImageReport
from virtfleet_api.machine import CloudInitFiles, Hardware, Machine, MachineKernel, Run
from virtfleet_api.report import MachineReport, NodeReport, Phase
from virtfleet_api.snapshot import SnapshotReport
from virtfleet_dev.guest_image import CMDLINE, guest_files
from virtfleet_node.agent.cells import Cells
from virtfleet_node.agent.daemon import NodeDaemon
from virtfleet_node.agent.device_table import DeviceTable
from virtfleet_node.agent.relay import Relay
from virtfleet_node.agent.surroundings import MERGE_BYTES_PER_SECOND, Surroundings
from virtfleet_node.agent.switch import Edges, NodeSwitch
from virtfleet_node.agent.taken_devices import TakenDevices
from virtfleet_node.core.desired.guest import DomainType, HostFacts
from virtfleet_node.core.errors import ConflictError, UnavailableError
from virtfleet_node.core.host_cpu import HostCpu
from virtfleet_node.core.network import Southbound
from virtfleet_node.core.stored import ImageFiles
from virtfleet_node.host.devices import Devices
from virtfleet_node.host.firewall import Firewall
from virtfleet_node.host.inventory import read_inventory
from virtfleet_node.host.local_ports import LocalPorts
from virtfleet_node.host.nftables import Nftables
from virtfleet_node.host.numa import read_cells
from virtfleet_node.host.open_vswitch import OpenVSwitch
from virtfleet_node.host.programs import Programs
from virtfleet_node.hypervisor.hypervisor import Hypervisor
from virtfleet_node.hypervisor.phantoms import LibvirtdState
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.media import MediaStore
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.volumes import Volumes
from virtfleet_node.storage.wanted_pools import WantedPools

KERNEL = "aaaaaaaa-0000-4000-8000-000000000000"
GENERIC_KERNEL = "aaaaaaaa-0000-4000-8000-000000000001"
"""It has a driver for SATA."""
DISK = "bbbbbbbb-0000-4000-8000-000000000000"
FREQUENCY = 2_800_000_000
"""What a CPU of the node is said to have."""
FACTS = HostFacts(
    DomainType.QEMU,
    "/usr/bin/qemu-system-x86_64",
    qemu_user=0,
    cpu=HostCpu(FREQUENCY, os.cpu_count() or 1, read_inventory().weight_scale),
)
_MEMORY = 128 << 20
_NUMBERS = itertools.count(1)


class RigNode(Protocol):
    """Where the daemon works: `virtfleet_dev.node.Node`, or a host that the tests themselves run on."""

    @property
    def name(self) -> str: ...
    @property
    def directory(self) -> Path: ...
    @property
    def uri(self) -> str: ...
    @property
    def root(self) -> Path: ...
    def command(self, *words: str | Path) -> list[str | Path]: ...
    def pids(self, program: str) -> Sequence[int]: ...


def prepared_images(pool: Path) -> dict[str, ImageFiles]:
    """Put the guest's image into the pool, and return it with the kernels."""
    source = guest_files()
    disk = pool / "images" / DISK / "disk.qcow2"
    if not disk.exists():
        disk.parent.mkdir(parents=True)
        shutil.copy(source / "guest.qcow2", disk)
    return {
        KERNEL: ImageFiles(source / "vmlinuz", ImageFormat.KERNEL, 0, source / "initrd.img"),
        GENERIC_KERNEL: ImageFiles(source / "vmlinuz-generic", ImageFormat.KERNEL, 0, source / "initrd-generic.img"),
        DISK: ImageFiles(disk, ImageFormat.QCOW2, 40 << 20),
    }


class Reports:
    """A journal that remembers everything."""

    def __init__(self) -> None:
        self.machines: list[MachineReport] = []
        self.connected: list[bool] = []
        self.snapshots: dict[str, SnapshotReport] = {}
        self.patience = 3.0
        """How many times as long as it says `until` waits: what it says suits a machine with nothing else to do."""
        self._changed = asyncio.Event()

    def publish_machine(self, report: MachineReport) -> None:
        self.machines.append(report)
        self._changed.set()

    def publish_image(self, report: ImageReport) -> None:
        """No test looks."""

    def remove_image(self, uid: str) -> None:
        """No test looks."""

    def publish_snapshot(self, report: SnapshotReport) -> None:
        self.snapshots[report.uid] = report
        self._changed.set()

    def remove_snapshot(self, uid: str) -> None:
        self.snapshots.pop(uid, None)
        self._changed.set()

    def publish_node(self, report: NodeReport) -> None:
        self.connected.append(report.hypervisor_connected)
        self._changed.set()

    async def until(
        self, condition: Callable[[], object], seconds: float, what: str, why: Callable[[], object] | None = None
    ) -> None:
        """Wait until the condition holds; it is looked at when something was published, and now and then.

        `why` tells what is known when it never does; else the last reports are told.
        """
        limit, now = seconds * self.patience, asyncio.get_running_loop().time
        end = now() + limit
        while not condition():
            assert now() < end, f"{what} took more than {limit} s: {why() if why else self.machines[-3:]}"
            self._changed.clear()
            try:
                async with asyncio.timeout(0.1):
                    await self._changed.wait()
            except TimeoutError:
                continue


class NodesLibvirtd(LibvirtdState):
    """The state of a node's libvirtd, seen from outside of the node, where its pid is another."""

    def __init__(self, node: RigNode) -> None:
        super().__init__(node.directory / "run" / "qemu")
        self._node = node

    def kill(self) -> None:
        for pid in self._node.pids("libvirtd"):
            os.kill(pid, signal.SIGKILL)


class Rig:
    """A daemon that can be killed and started again."""

    def __init__(
        self,
        node: RigNode,
        southbound: Southbound | None = None,
        images: Callable[[Path], dict[str, ImageFiles]] = prepared_images,
    ) -> None:
        """Take a node that is up, how its ovn-controller reaches the southbound database, and images for its pool."""
        self.node = node
        self.southbound = southbound
        self.firewall_ports: tuple[int, ...] = ()
        """The daemon's ports that its firewall closes; without any there is no firewall."""
        self.state = node.directory / "virtfleet"
        self.pool = self.state / "pool"
        self.pools = Pools({"default": self.pool})
        self.pools.prepare()
        self.wanted_pools = WantedPools(self.pools, self.state / "pools.json", (self.state / "pools",))
        self.disks = DiskStore(self.pools)
        self.media = MediaStore(self.state)
        self.known = images(self.pool)
        self.images = PreparedImages(self.pools, self.disks, self.known)
        self.reports = Reports()
        self.relay = Relay()
        self.hypervisor = Hypervisor(node.uri, NodesLibvirtd(node))
        self.read_cells = read_cells
        self.cells = Cells()
        self.merge_bytes_per_second = MERGE_BYTES_PER_SECOND
        self.switch = self._new_switch()
        self.daemon = self._new_daemon()
        self.libvirt = libvirt.open(node.uri)

    async def start(self) -> None:
        await self.hypervisor.start(self.relay)
        await self._start_daemon()

    async def stop(self) -> None:
        await self.daemon.stop()
        await self.hypervisor.stop()

    async def tidy(self) -> None:
        """Remove the machines that a test has left, and bring back the daemon if it left that dead."""
        self.reconnect()
        with contextlib.suppress(ConflictError):  # of a machine that is being put back to it
            await self._remove_snapshots()
        if not self.libvirt.listAllDomains() and self.relay.target is not None:
            return
        await self.restart_daemon()
        for report in self.daemon.list_machines():
            await self.daemon.delete_machine(report.uid)
        for domain in self.libvirt.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):  # it may have ended by itself just now
                domain.destroy()
        await self.reports.until(lambda: not self.libvirt.listAllDomains(), 30, "a failed test's machines to go")
        await self._remove_snapshots()

    async def _remove_snapshots(self) -> None:
        for kept in self.disks.snapshots.read_all():
            await self.daemon.put_snapshot(kept.document.model_copy(update={"present": False}))

    async def restart_daemon(self) -> None:
        """Forget everything that is only in memory, as a killed daemon does, and look again."""
        await self.kill_daemon()
        await self._start_daemon()

    async def kill_daemon(self) -> None:
        self.relay.target = None
        await self.daemon.stop()

    async def crash_daemon(self) -> None:
        """End the daemon without its tidying up: what it had begun goes on or stays as it is."""
        for image in self.images._entries.values():
            if image.task:
                self.hypervisor.abort_backup = _never  # type: ignore[method-assign]
                await _ended(image.task)
        for entry in self.daemon._entries.values():
            if entry.work and entry.work.task:
                self.hypervisor.abort_backup = _never  # type: ignore[method-assign]
                await _ended(entry.work.task)
        await self._crash_captures()
        self.relay.target = None
        await self.daemon.stop()
        vars(self.hypervisor).pop("abort_backup", None)
        await self._start_daemon()

    async def _crash_captures(self) -> None:
        """End captures where they are; what libvirt does for them goes on."""
        snapshots = self.daemon._snapshots
        vars(snapshots._capturer).update(_end=_never, _undo=_never)
        for task in (*snapshots._tasks.values(), *snapshots._compressing.values()):
            await _ended(task)

    async def put(self, machine: Machine, **change: object) -> Machine:
        """Put a document with some fields changed, as the operator does: again while libvirtd is away; return it."""
        changed = machine.model_copy(update=change)
        end = time.monotonic() + 30 * self.reports.patience
        while True:
            try:
                await self.daemon.put_machine(changed)
            except UnavailableError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.3)
            else:
                return changed

    def last(self, machine: Machine) -> MachineReport | None:
        return next((r for r in reversed(self.reports.machines) if r.uid == machine.uid), None)

    def phases(self, machine: Machine) -> list[Phase]:
        """Return the phases the machine went through, each named once in a row."""
        return [phase for phase, _ in itertools.groupby(r.phase for r in self.reports.machines if r.uid == machine.uid)]

    async def until_phase(self, machine: Machine, phase: Phase, seconds: float = 60) -> MachineReport:
        """Wait until the last report says so, and return it."""
        await self.reports.until(lambda: (r := self.last(machine)) and r.phase is phase, seconds, phase)
        report = self.last(machine)
        assert report is not None
        return report

    async def until_console(self, machine: Machine, text: str, count: int = 1, seconds: float = 90) -> None:
        """Wait until the guest has written the text this often, over all its starts."""
        await self.reports.until(lambda: self.console(machine).count(text) >= count, seconds, f"{text} on the console")

    def console(self, machine: Machine) -> str:
        """Return what the guest has written, over all its starts."""
        log = self.state / "machines" / machine.uid / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    async def until_agent(self, machine: Machine) -> None:
        await self.reports.until(lambda: (r := self.last(machine)) and r.agent_connected, 90, "the guest agent")

    async def type(self, machine: Machine, text: str, prompts: int = 1) -> None:
        """Type a line at the guest's shell, once it has asked for one this often."""
        await self.until_console(machine, "/ # ", prompts)
        await self.reports.until(lambda: self.hypervisor.connected, 30, "libvirtd to be back")
        try:
            console = await self.daemon.open_console(machine.uid)
        except UnavailableError:  # it was killed just now, and that is noticed only by asking
            await asyncio.sleep(2)
            await self.reports.until(lambda: self.hypervisor.connected, 30, "libvirtd to be back")
            console = await self.daemon.open_console(machine.uid)
        await console.write(text.encode() + b"\n")
        echoed = b""
        async with asyncio.timeout(30 * self.reports.patience):
            # A shell breaks a long line in two; what it wrote before comes first.
            while text[-12:].encode() not in echoed.replace(b"\r\r\n", b""):
                echoed += await console.read()
        await console.close()

    async def remove(self, machine: Machine) -> MachineReport:
        """Remove the machine without asking its guest."""
        await self.put(machine, run=Run.ABSENT, grace_period_seconds=0)
        return await self.until_phase(machine, Phase.ABSENT)

    def domain(self, machine: Machine) -> libvirt.virDomain:
        return self.libvirt.lookupByUUIDString(machine.uid)

    def reconnect(self) -> None:
        """Connect the test's own view of libvirtd again, after it was killed; it is back within a second or two."""
        end = time.monotonic() + 20 * self.reports.patience
        while True:
            try:
                self.libvirt = libvirt.open(self.node.uri)
            except libvirt.libvirtError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return

    def qemu_pids(self) -> tuple[int, ...]:
        return tuple(self.node.pids("qemu-system-x86"))

    def _new_daemon(self) -> NodeDaemon:
        self.images = PreparedImages(self.pools, self.disks, self.known)
        self.switch = self._new_switch()
        self.cells = Cells(self.read_cells)
        self.devices = DeviceTable(self.hypervisor, TakenDevices(self.state / "devices.json"), draws=False)
        around = Surroundings(
            hypervisor=self.hypervisor,
            facts=FACTS,
            pools=self.pools,
            wanted_pools=self.wanted_pools,
            disks=self.disks,
            volumes=Volumes(self.node.directory / "kubelet", FACTS.qemu_user),
            images=self.images,
            media=self.media,
            switch=self.switch,
            devices=self.devices,
            journal=self.reports,
            state_directory=self.state,
            now=lambda: datetime.now(UTC),
            cells=self.cells,
            local_ports=self._local_ports(),
            merge_bytes_per_second=self.merge_bytes_per_second,
        )
        return NodeDaemon(around, self._describe)

    def _local_ports(self) -> LocalPorts:
        programs = Programs([str(word) for word in self.node.command()])
        return LocalPorts(programs, self.node.directory / "ovs-run" / "db.sock", self.node.root)

    def _new_switch(self) -> NodeSwitch:
        programs = Programs([str(word) for word in self.node.command()])
        socket = self.node.directory / "ovs-run" / "db.sock"
        firewall = Firewall(Nftables(programs), self.firewall_ports, enabled=bool(self.firewall_ports))
        edges = Edges(OpenVSwitch(programs, socket), Devices(programs), firewall)
        return NodeSwitch(edges, self.state / "network.json", lambda: self.southbound)

    async def _start_daemon(self) -> None:
        self.daemon = self._new_daemon()
        self.relay.target = self.daemon
        await self.daemon.start()

    def _describe(self) -> NodeReport:
        return NodeReport(
            name=self.node.name,
            daemon_version="1",
            libvirt_version="9.0.0",
            qemu_version="7.2.0",
            hypervisor="qemu",
            architecture="x86_64",
            cpus=2,
            cpu_frequency_hz=1,
            memory_bytes=1,
            labels={},
            hypervisor_connected=self.hypervisor.connected,
            network=self.switch.report,
            devices=self.devices.reports(),
        )


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _never(*_: object) -> None:
    """Stand for what a killed process does not do any more."""


def new_machine(**change: object) -> Machine:
    """Return a machine that starts a kernel, without disks unless they are given."""
    number = next(_NUMBERS)
    hardware: dict[str, object] = {
        "memory_bytes": _MEMORY,
        "kernel": MachineKernel(image_uid=KERNEL, cmdline=CMDLINE),
    }
    hardware.update({name: change.pop(name) for name in tuple(change) if name in Hardware.model_fields})
    fields: dict[str, object] = {
        "uid": str(uuid.uuid4()),
        "namespace": "default",
        "name": f"guest-{number}",
        "run": Run.RUNNING,
        "grace_period_seconds": 30,
        **change,
    }
    return Machine.model_validate({**fields, "hardware": Hardware.model_validate(hardware)})


def cloud_init(script: str) -> CloudInitFiles:
    """Return files whose user data the guest runs."""
    return CloudInitFiles(meta_data="instance-id: one\nlocal-hostname: hugo\n", user_data=f"#!/bin/sh\n{script}\n")
