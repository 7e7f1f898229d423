"""Snapshots of machines of the rig, made as the daemon makes them."""

import asyncio
import uuid
from datetime import UTC, datetime

import libvirt
from lxml import etree

from machine_rig import Rig
from virtfleet_api.machine import Machine, MachineRestore
from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_node.core.captured import Captured, CapturedDisk, KeptSnapshot

_FLAGS = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
)


async def capture(rig: Rig, machine: Machine, leave_out: tuple[str, ...] = ()) -> str:
    """Capture a machine, with its memory if it runs; return the snapshot's UID."""
    store, layers = rig.disks.snapshots, rig.disks.layers
    uid = str(uuid.uuid4())
    document = MachineSnapshot(uid=uid, namespace="default", name=f"s-{uid[:8]}", machine_uid=machine.uid)
    store.begin("default", KeptSnapshot(document=document))
    domain = rig.domain(machine)
    found = [disk for disk in rig.disks.read_disks(machine.uid) if disk.name not in leave_out]
    new = {disk.path: layers.next_path(machine.uid, disk.pool, disk.name) for disk in found}
    for below, path in new.items():
        await layers.make(path, below)
    if domain.isActive():
        await asyncio.to_thread(
            domain.snapshotCreateXML, _describe(domain, new, str(store.memory_file(uid)), uid), _FLAGS
        )
    stored = (await rig.hypervisor.read(machine.uid)).stored
    assert stored is not None
    captured = Captured(
        created_at=datetime.now(UTC),
        hardware=stored.started or machine.hardware,
        places=stored.places,
        disks=tuple(
            CapturedDisk(name=disk.name, pool=disk.pool, file=disk.path.name, capacity_bytes=disk.capacity_bytes)
            for disk in found
        ),
        memory=bool(domain.isActive()),
    )
    store.write(KeptSnapshot(document=document, captured=captured))
    return uid


def restore(snapshot_uid: str, *, memory: bool = True) -> MachineRestore:
    """Return a restore that has not been asked for before."""
    return MachineRestore(token=str(uuid.uuid4()), snapshot_uid=snapshot_uid, memory=memory)


def _describe(domain: libvirt.virDomain, new: dict, memory: str, name: str) -> str:  # type: ignore[type-arg]
    snapshot = etree.Element("domainsnapshot")
    etree.SubElement(snapshot, "name").text = name
    etree.SubElement(snapshot, "memory", snapshot="external", file=memory)
    disks = etree.SubElement(snapshot, "disks")
    files = {str(below): str(path) for below, path in new.items()}
    for disk in etree.fromstring(domain.XMLDesc()).iterfind("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        file = files.get(source.get("file", "")) if source is not None else None
        assert target is not None
        if file is None:
            etree.SubElement(disks, "disk", name=target.get("dev", ""), snapshot="no")
        else:
            one = etree.SubElement(disks, "disk", name=target.get("dev", ""), snapshot="external", type="file")
            etree.SubElement(one, "source", file=file)
    return etree.tostring(snapshot, encoding="unicode")
