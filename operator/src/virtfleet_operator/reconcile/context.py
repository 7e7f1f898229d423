"""What every reconcile function works with. Made once, by `__main__`; nothing here is a global."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from virtfleet_api.device import DeviceClassRule
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.devices import Rules, rules_of
from virtfleet_operator.core.place import Candidate, Strategy, Surroundings, allocatable, left
from virtfleet_operator.core.room import Room
from virtfleet_operator.fleet.members import Fleet
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.kube.claims import ClaimReader
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.events import EventRecorder
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.kube.pods import HolderPods
from virtfleet_operator.kube.secrets import SecretReader
from virtfleet_operator.metrics import Metrics
from virtfleet_operator.reconcile.catalog import NODE, CacheCatalog
from virtfleet_operator.reconcile.loads import Loads
from virtfleet_operator.reconcile.network import Network
from virtfleet_operator.reconcile.offers import Offers
from virtfleet_operator.reconcile.unplaced import Unplaced


@dataclass(frozen=True)
class Volumes:
    """What PersistentVolumeClaims are used by."""

    pods: HolderPods
    claims: ClaimReader
    image: str
    """What the pods run that hold claims."""
    look_later: Callable[[Key, float], None]
    """Has a machine looked at after so many seconds."""
    surplus: dict[str, datetime] = field(default_factory=dict)
    """Since when pods are there that hold what their machine's spec names no more, by UID."""


@dataclass(frozen=True)
class Context:
    """The edges that a reconcile function reads from and writes to."""

    client: KubeClient
    cache: Cache
    catalog: CacheCatalog
    loads: Loads
    fleet: Fleet
    secrets: SecretReader
    events: EventRecorder
    metrics: Metrics
    clock: Callable[[], datetime]
    passing: dict[Key, tuple[str, datetime]] = field(default_factory=dict)
    """Printable status that a machine passes through, and since when; not worth a write if it is left soon."""
    written: dict[Key, datetime] = field(default_factory=dict)
    """When this process last wrote the status of an image or a node."""

    keep_unused_images: timedelta = timedelta(days=1)
    """How long a copy of an image stays on a node where no machine uses it."""
    address_cool_down: timedelta = timedelta(minutes=5)
    """How long an address that was given back is given to nobody."""
    last_addresses: dict[tuple[str, int], int] = field(default_factory=dict)
    """Last address that was given out, as a number, by switch and IP version: the next search goes on after it."""
    strategy: Strategy = Strategy.BALANCED
    """Which of the nodes that could take a machine is better."""
    operator_addresses: tuple[str, ...] = ()
    """Addresses that nodes' firewalls let operators in from."""
    device_rules: tuple[DeviceClassRule, ...] = ()
    """Device classes of every node that has none of the same name."""
    network: Network | None = None
    """None where the configuration names no OVN."""
    volumes: Volumes | None = None
    """None where the configuration does not enable them."""
    offers: Offers = field(init=False, repr=False)
    unplaced: Unplaced = field(default_factory=Unplaced, repr=False)
    copy_key: bytes = field(default=b"", repr=False)
    """What the tokens are made with that nodes copy images from each other with."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "offers", Offers(self.cache, self.loads, self.fleet, self.device_rules))

    def candidates(self) -> Collection[Candidate]:
        """Return every node as placement sees it."""
        return self.offers.candidates()

    def surroundings(self, images: Collection[str] = ()) -> Surroundings:
        """Return what else placing depends on, for a machine that is made from these images."""
        return Surroundings(self.loads.neighbours, self.offers.holders(images), self.strategy)

    def room(self, node: str, key: Key) -> Room | None:
        """Return what a node has for one machine, None as long as the node is not heard."""
        stored, state = self.cache.get(Key(NODE, "", node)), self.fleet.node(node)
        if stored is None or not isinstance(stored.resource, VMNode) or state is None or state.report is None:
            return None
        others, cpu_hz = self.loads.others(node, key), max(0, state.report.cpu_frequency_hz)
        vcpus, memory_bytes = left(stored.resource, state.report, others)
        reservable = allocatable(stored.resource, state.report).reserved_hz - others.reserved_hz
        return Room(node, vcpus, memory_bytes, reservable - others.dedicated_cpus * cpu_hz, cpu_hz)

    def fleet_complete(self) -> bool:
        """Say whether every node is heard, so that no report can be missing."""
        return all(self.fleet.contact(stored.key.name) is Contact.HEARD for stored in self.cache.all(NODE))

    def unsettled(self) -> bool:
        """Say whether a node may yet turn up: what is decided now would be wrong in a moment."""
        return any(state.contact is Contact.CONNECTING for state in self.fleet)

    def rules_of(self, node: str) -> Rules:
        """Return what each device class is made of on a node."""
        found = self.cache.get(Key(NODE, "", node))
        return rules_of(found.resource if found and isinstance(found.resource, VMNode) else None, self.device_rules)
