"""What machines ask of their node, and what they are promised there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from virtfleet_api.names import NODE_LABEL
from virtfleet_api.scheduling import Affinity, MachineTerm, Toleration
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.devices import asked_devices
from virtfleet_operator.core.effective import DEFAULT_CPU_MODEL, Sizing
from virtfleet_operator.core.network.cards import Card

K = TypeVar("K", str, int)

_NOTHING: Final[Mapping[int, int]] = {}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What other machines may ask about a machine, and what it keeps away itself."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    keeps_away: tuple[MachineTerm, ...] = ()
    """Its required anti-affinity."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a machine asks of its node."""

    vcpus: int
    memory_bytes: int
    pools: Mapping[str, int] = field(default_factory=dict)
    """Sizes of its disks in bytes, by pool."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_name: str | None = None
    """The node with the disks that the machine's own are copied from."""
    uplinks: frozenset[str] = frozenset()
    """Network devices of the switches that its cards are on; "" for an Overlay."""
    reserved_hz: int = 0
    """What it gets of the CPUs whenever it wants it."""
    devices: Mapping[str, int] = field(default_factory=dict)
    """How many devices of the host it needs, see `asked_devices`."""
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] = ()
    itself: Neighbour = Neighbour()
    cpu_model: str = DEFAULT_CPU_MODEL
    dedicated: bool = False
    """Each vCPU has a CPU of the host for itself."""
    hugepage_bytes: int | None = None
    """Size of the huge pages that back its memory; None for ordinary memory."""
    images: frozenset[str] = frozenset()
    """UIDs of the images that it is made from."""
    unreachable: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Nodes that its PersistentVolumeClaims cannot be reached from, by the claim's name."""


@dataclass(frozen=True, slots=True)
class Load:
    """What machines are promised."""

    machines: int = 0
    vcpus: int = 0
    """Those of machines with dedicated CPUs among them."""
    memory_bytes: int = 0
    """Ordinary memory."""
    disks: Mapping[str, int] = field(default_factory=dict)
    """Sizes in bytes, by pool, of disks that their node does not report yet."""
    reserved_hz: int = 0
    """Reservations, without those of machines with dedicated CPUs: they have whole CPUs."""
    devices: Mapping[str, int] = field(default_factory=dict)
    """How many devices of the host machines have that shall run, see `asked_devices`."""
    dedicated_cpus: int = 0
    """CPUs of the host that one machine has for itself."""
    hugepages: Mapping[int, int] = field(default_factory=dict)
    """Bytes of memory in huge pages, by the size of a page."""

    @property
    def all_memory_bytes(self) -> int:
        """Return ordinary memory and huge pages together."""
        return self.memory_bytes + sum(self.hugepages.values())

    def __add__(self, other: "Load") -> "Load":
        return self._plus(other, 1)

    def __sub__(self, other: "Load") -> "Load":
        return self._plus(other, -1)

    def _plus(self, other: "Load", sign: int) -> "Load":
        return Load(
            machines=self.machines + sign * other.machines,
            vcpus=self.vcpus + sign * other.vcpus,
            memory_bytes=self.memory_bytes + sign * other.memory_bytes,
            disks=_sums(self.disks, other.disks, sign),
            reserved_hz=self.reserved_hz + sign * other.reserved_hz,
            devices=_sums(self.devices, other.devices, sign),
            dedicated_cpus=self.dedicated_cpus + sign * other.dedicated_cpus,
            hugepages=_sums(self.hugepages, other.hugepages, sign),
        )


def _sums(one: Mapping[K, int], other: Mapping[K, int], sign: int) -> Mapping[K, int]:
    if not other:
        return one
    sums = {key: one.get(key, 0) + sign * other.get(key, 0) for key in one.keys() | other.keys()}
    return {key: size for key, size in sums.items() if size}


def need(
    vm: VirtualMachine,
    sizing: Sizing,
    disks: Mapping[str, int],
    node_name: str | None = None,
    cards: Iterable[Card] = (),
    images: Iterable[str] = (),
) -> Need:
    """Return what a machine asks of its node.

    `disks` are the sizes by pool, see `disk_sizes`; `images` are the UIDs of the images that it is made from.
    """
    return Need(
        vcpus=sizing.vcpus,
        memory_bytes=sizing.memory_bytes,
        pools=disks,
        node_selector=vm.spec.node_selector,
        node_name=node_name,
        uplinks=frozenset(c.switch.spec.uplink.interface if c.switch.spec.uplink else "" for c in cards),
        reserved_hz=sizing.scheduling.reservation_hz,
        devices=asked_devices(vm),
        affinity=vm.spec.affinity,
        tolerations=vm.spec.tolerations,
        itself=neighbour(vm),
        cpu_model=sizing.cpu_model,
        dedicated=sizing.dedicated_cpus,
        hugepage_bytes=sizing.hugepage_bytes,
        images=frozenset(images),
    )


def neighbour(vm: VirtualMachine) -> Neighbour:
    """Return a machine as others see it that are placed. The label that binds it says nothing of what it is."""
    labels = {key: value for key, value in vm.metadata.labels.items() if key != NODE_LABEL}
    apart = vm.spec.affinity.vm_anti_affinity if vm.spec.affinity else None
    return Neighbour(vm.metadata.namespace, labels, apart.required if apart else ())


def load_of(sizing: Sizing, disks: Mapping[str, int], devices: Mapping[str, int] | None = None) -> Load:
    """Return what one machine adds to its node; `devices` are those it is promised, see `promised_devices`."""
    return added(
        Need(
            vcpus=sizing.vcpus,
            memory_bytes=sizing.memory_bytes,
            pools=disks,
            reserved_hz=sizing.scheduling.reservation_hz,
            devices=devices or {},
            dedicated=sizing.dedicated_cpus,
            hugepage_bytes=sizing.hugepage_bytes,
        )
    )


def added(asked: Need) -> Load:
    """Return what a machine adds to its node when it is placed."""
    return Load(
        machines=1,
        vcpus=asked.vcpus,
        memory_bytes=0 if asked.hugepage_bytes else asked.memory_bytes,
        disks=asked.pools,
        reserved_hz=0 if asked.dedicated else asked.reserved_hz,
        devices=asked.devices,
        dedicated_cpus=asked.vcpus if asked.dedicated else 0,
        hugepages={asked.hugepage_bytes: asked.memory_bytes} if asked.hugepage_bytes else _NOTHING,
    )
