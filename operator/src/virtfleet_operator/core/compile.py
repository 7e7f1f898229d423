"""From a machine's spec to the document that its node works to. Same input, same document: nothing here is drawn."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC
from typing import Final

from virtfleet_api.io_tune import IoTune
from virtfleet_api.machine import (
    AnyDiskSource,
    BlankSource,
    CloudInitFiles,
    DiskCopySource,
    EmptySource,
    ExistingSource,
    Hardware,
    ImageDiskSource,
    IoLimits,
    IsoSource,
    Machine,
    MachineDisk,
    MachineInterface,
    MachineKernel,
    Restart,
    RetainedSource,
    Run,
    SnapshotDiskSource,
    VolumeSource,
)
from virtfleet_api.network import Network
from virtfleet_api.virtual_machine import Clone, Disk, DiskBus, PowerState, RunStrategy, VirtualMachine
from virtfleet_operator.core.adoption import Adoptions, find_adoptions
from virtfleet_operator.core.catalog import Catalog, image_key, image_references, is_independent
from virtfleet_operator.core.effective import LIMITS, Sizing
from virtfleet_operator.core.network.cards import Card, find_cards, mac_of, port_id
from virtfleet_operator.core.network.plans import limit_of
from virtfleet_operator.core.references import Images, find_images
from virtfleet_operator.core.restores import machine_restore
from virtfleet_operator.core.secret import SecretData
from virtfleet_operator.core.snapshot_disks import SnapshotDisks, find_snapshot_disks, snapshot_disk_node
from virtfleet_operator.core.sources import Sources, find_sources, source_node
from virtfleet_operator.core.verdict import Invalid, Waiting

_MAC_PREFIX: Final = "52:54:00"  # the range that QEMU and libvirt give to guests
_SECTOR: Final = 512  # qcow2 rounds a size up to it; done here, a report agrees with the document
_UNKNOWN_MEMORY: Final = 2**20  # of a machine that is only deleted; the document must name some

_RESTARTS: Final = {
    RunStrategy.ALWAYS: Restart.ALWAYS,
    RunStrategy.RERUN_ON_FAILURE: Restart.ON_FAILURE,
    RunStrategy.ONCE: Restart.NEVER,
    RunStrategy.MANUAL: Restart.NEVER,
    RunStrategy.HALTED: Restart.NEVER,
}
_RUNS: Final = {
    None: Run.RUNNING,
    PowerState.RUNNING: Run.RUNNING,
    PowerState.PAUSED: Run.PAUSED,
    PowerState.STOPPED: Run.STOPPED,
}


@dataclass(frozen=True, slots=True)
class Origins:
    """What the disks of a machine are made from and its cards are plugged into, found."""

    images: Images
    sources: Sources = field(default_factory=dict)
    snapshots: SnapshotDisks = field(default_factory=dict)
    adoptions: Adoptions = field(default_factory=dict)
    cards: tuple[Card, ...] = ()


def compile_machine(
    vm: VirtualMachine, sizing: Sizing, catalog: Catalog, secret: SecretData | Waiting | None
) -> Machine | Waiting | Invalid:
    """Compile a valid machine; Waiting when an image, a disk or snapshot to begin from, or the Secret is not there.

    A machine that shall be off is compiled without its Secret, so that it can be stopped when that is gone.
    """
    origins = _find_origins(vm, catalog)
    if isinstance(origins, Waiting | Invalid):
        return origins
    run = run_of(vm)
    if isinstance(secret, Waiting):
        if run != Run.STOPPED:
            return secret
        secret = None
    document = _document(vm, run, _hardware(vm, sizing, origins), _cloud_init(vm, secret))
    return document.model_copy(update={"restore": machine_restore(vm, catalog)})


def _find_origins(vm: VirtualMachine, catalog: Catalog) -> Origins | Waiting | Invalid:
    images, sources = find_images(vm, catalog), find_sources(vm, catalog)
    if isinstance(images, Waiting | Invalid):
        return images
    if isinstance(sources, Waiting | Invalid):
        return sources
    snapshots = find_snapshot_disks(vm, catalog, source_node(sources))
    if isinstance(snapshots, Waiting | Invalid):
        return snapshots
    adoptions = find_adoptions(vm, catalog, source_node(sources) or snapshot_disk_node(snapshots))
    if isinstance(adoptions, Waiting | Invalid):
        return adoptions
    cards = find_cards(vm, catalog)
    return cards if isinstance(cards, Waiting | Invalid) else Origins(images, sources, snapshots, adoptions, cards)


def compile_deletion(vm: VirtualMachine, sizing: Sizing | Waiting | Invalid | None, catalog: Catalog) -> Machine:
    """Compile the document that removes a machine. It waits for nothing: what is unknown is left out."""
    images = {key: image for key in image_references(vm) if (image := catalog.image(*key))}
    memory = sizing.memory_bytes if isinstance(sizing, Sizing) else _UNKNOWN_MEMORY
    hardware = Hardware(
        memory_bytes=memory, disks=tuple(_disk(vm, disk, Origins(images), None) for disk in vm.spec.disks)
    )
    return _document(vm, Run.ABSENT, hardware, None)


def run_of(vm: VirtualMachine) -> Run:
    """Return the state that run strategy and power state ask for."""
    return Run.STOPPED if vm.spec.run_strategy == RunStrategy.HALTED else _RUNS[vm.spec.power_state]


def derive_mac(uid: str, nic_name: str) -> str:
    """Return the address of a network card that names none: the same for the machine's whole life."""
    digest = hashlib.sha256(f"{uid}/{nic_name}".encode()).digest()
    return ":".join([_MAC_PREFIX, *(f"{byte:02x}" for byte in digest[:3])])


def _document(vm: VirtualMachine, run: Run, hardware: Hardware, cloud_init: CloudInitFiles | None) -> Machine:
    asked = vm.spec.restart_requested_at
    digest = cloud_init.digest() if cloud_init else None
    return Machine(
        uid=vm.metadata.uid,
        namespace=vm.metadata.namespace,
        name=vm.metadata.name,
        generation=vm.metadata.generation,
        run=run,
        restart=_RESTARTS[vm.spec.run_strategy],
        start_token=asked.astimezone(UTC).isoformat() if asked else "",
        grace_period_seconds=vm.spec.termination_grace_period_seconds,
        hardware=hardware.model_copy(update={"cloud_init_digest": digest}),
        cloud_init=cloud_init,
    )


def _hardware(vm: VirtualMachine, sizing: Sizing, origins: Origins) -> Hardware:
    boot, cards = vm.spec.kernel_boot, {card.name: card for card in origins.cards}
    return Hardware(
        machine_type=vm.spec.machine_type,
        sockets=sizing.sockets,
        cores=sizing.cores,
        threads=sizing.threads,
        cpu_model=sizing.cpu_model,
        scheduling=sizing.scheduling,
        max_vcpus=sizing.max_vcpus,
        memory_bytes=sizing.memory_bytes,
        dedicated_cpus=sizing.dedicated_cpus,
        affinity=dict(sizing.affinity),
        hugepage_bytes=sizing.hugepage_bytes,
        max_memory_bytes=sizing.max_memory_bytes,
        deferred=tuple(_deferred(vm, sizing)),
        disks=tuple(_disk(vm, disk, origins, sizing.io_tune) for disk in vm.spec.disks),
        interfaces=tuple(_interface(vm, nic, cards.get(nic.name)) for nic in vm.spec.networks),
        kernel=MachineKernel(image_uid=origins.images[image_key(vm, boot.image)].metadata.uid, cmdline=boot.cmdline)
        if boot
        else None,
        guest_agent=vm.spec.guest_agent,
        display=vm.spec.display.model if vm.spec.display else None,
    )


def _deferred(vm: VirtualMachine, sizing: Sizing) -> Iterator[str]:
    """Yield the fields of the document that wait for the next start, with disks' limits named disk by disk."""
    yield from (name for name in sizing.deferred if name != LIMITS)
    if LIMITS in sizing.deferred:
        yield from (f"disks[{disk.name}].limits" for disk in vm.spec.disks if disk.io_tune is None)


def _disk(vm: VirtualMachine, disk: Disk, origins: Origins, default: IoTune | None) -> MachineDisk:
    return MachineDisk(
        name=disk.name,
        pool=disk.pool,
        source=_origin(vm, disk, origins),
        size_bytes=None if disk.bus is DiskBus.CDROM else -(-disk.size // _SECTOR) * _SECTOR if disk.size else None,
        bus=disk.bus,
        cache=disk.cache,
        boot_order=disk.boot_order,
        reclaim_policy=disk.reclaim_policy,
        limits=_limits(default if disk.io_tune is None else disk.io_tune),
    )


def _limits(tune: IoTune | None) -> IoLimits | None:
    written = {name: value for name in IoTune.model_fields if (value := getattr(tune, name, None)) is not None}
    return IoLimits.model_validate(written) if written else None


def _origin(vm: VirtualMachine, disk: Disk, origins: Origins) -> AnyDiskSource:
    if disk.source.pvc:
        return VolumeSource(claim=disk.source.pvc.claim_name)
    if disk.source.disk:
        return _copied(disk, origins.sources)
    if disk.source.snapshot:
        return _captured(disk, origins.snapshots)
    if disk.source.vm_disk:
        return _adopted(disk, origins.adoptions)
    return _source(vm, disk, origins.images)


def _adopted(disk: Disk, adoptions: Adoptions) -> AnyDiskSource:
    """Return the kept disk that is taken over; nothing is looked for once the machine has it."""
    found, clone = adoptions.get(disk.name), disk.source.clone or Clone.LINKED
    if found is None:
        return ExistingSource(clone=clone)
    return RetainedSource(machine_uid=found.machine_uid, name=found.name, clone=clone)


def _captured(disk: Disk, snapshots: SnapshotDisks) -> AnyDiskSource:
    """Return the snapshot's disk that a disk begins as; nothing is looked for once it exists."""
    found, clone = snapshots.get(disk.name), disk.source.clone or Clone.LINKED
    if found is None:
        return ExistingSource(clone=clone)
    return SnapshotDiskSource(snapshot_uid=found.snapshot_uid, name=found.name, clone=clone)


def _copied(disk: Disk, sources: Sources) -> AnyDiskSource:
    """Return what a disk is copied from; nothing is looked for once it exists, nor when it is to go."""
    found, clone = sources.get(disk.name), disk.source.clone or Clone.LINKED
    if found is None or disk.source.disk is None:
        return ExistingSource(clone=clone)
    return DiskCopySource(machine_uid=found.machine_uid, pool=found.pool, name=disk.source.disk.name, clone=clone)


def _source(vm: VirtualMachine, disk: Disk, images: Images) -> AnyDiskSource:
    """Return what a disk is made from, if that matters; the status remembers the image when the catalog does not."""
    if disk.bus is DiskBus.CDROM:
        iso = disk.source.iso and images.get(image_key(vm, disk.source.iso))
        return IsoSource(image_uid=iso.metadata.uid) if iso else EmptySource()
    if disk.source.image and is_independent(vm, disk):
        return ExistingSource(clone=disk.source.clone or Clone.LINKED)
    image = disk.source.image and images.get(image_key(vm, disk.source.image))
    backing = next((d.backing for d in vm.status.disks if d.name == disk.name), None)
    uid = image.metadata.uid if image else backing
    return ImageDiskSource(image_uid=uid, clone=disk.source.clone or Clone.LINKED) if uid else BlankSource()


def _interface(vm: VirtualMachine, nic: Network, card: Card | None) -> MachineInterface:
    if card is not None:
        return MachineInterface(
            name=nic.name,
            mac=mac_of(vm, nic),
            model=nic.model,
            port=port_id(vm.metadata.uid, nic.name),
            state=nic.state,
            inbound=limit_of(card.bandwidth.inbound),
            mtu=card.mtu,
        )
    mac = nic.mac_address.lower() if nic.mac_address else derive_mac(vm.metadata.uid, nic.name)
    return MachineInterface(name=nic.name, mac=mac, model=nic.model, state=nic.state)


def _cloud_init(vm: VirtualMachine, secret: SecretData | None) -> CloudInitFiles | None:
    """Return the NoCloud files: https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html."""
    asked = vm.spec.cloud_init
    if asked is None or (asked.secret_ref and secret is None):
        return None
    # JSON is YAML, and cannot be broken out of by a name
    meta_data = json.dumps({"instance-id": vm.metadata.uid, "local-hostname": vm.metadata.name})
    if secret is not None:
        return CloudInitFiles(meta_data=meta_data, user_data=secret.user_data, network_data=secret.network_data)
    return CloudInitFiles(meta_data=meta_data, user_data=asked.user_data or "", network_data=asked.network_data or "")
