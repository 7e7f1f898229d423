"""Whatever machines do and whenever the daemon dies: no device is ever given to two of them.

What libvirt keeps is modelled here, domains and their metadata; choosing, keeping and freeing are the daemon's own
functions, in the order in which it writes.
"""

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from virtfleet_api.device import GpuMode
from virtfleet_api.machine import DeviceMatch, Hardware, Machine, MachineDevice, Run
from virtfleet_api.report import HostDevice, MediatedType
from virtfleet_node.core.chosen import ChosenDevice
from virtfleet_node.core.devices import FoundDevice, Holding, HostView, NodeDevices, choose, keep
from virtfleet_node.core.guest_devices import held
from virtfleet_node.core.observed import AttachedDevice, DomainState, ObservedDomain
from virtfleet_node.core.record import Life, Record, Stored, new_stored, with_desired

UIDS = tuple(f"0000000{number}-0000-4000-8000-000000000000" for number in range(4))
PARTS = 2
NAMES = ("a", "b")


def _found(bus: int, group: int, *companions: str, parts: int | None = None) -> FoundDevice:
    types = () if parts is None else (MediatedType(name="t", available=parts),)
    address = f"0000:{bus:02x}:00.0"
    report = HostDevice(
        address=address, vendor="10de", product="1", pci_class="030000", iommu_group=group, mediated_types=types
    )
    return FoundDevice(report, companions)


HOST = (_found(1, 1, "0000:01:00.1"), _found(2, 2), _found(3, 2), _found(4, 4, parts=PARTS))
GROUPS = NodeDevices(HOST).groups()

wishes = st.lists(
    st.builds(
        lambda name, mediated, address: MachineDevice(
            name=name,
            device_class="c/d",
            mode=GpuMode.MEDIATED if mediated else GpuMode.PASSTHROUGH,
            matches=(DeviceMatch(mediated_type="t") if mediated else DeviceMatch(address=address),),
        ),
        st.sampled_from(NAMES),
        st.booleans(),
        st.sampled_from([None, *(one.report.address for one in HOST)]),
    ),
    max_size=2,
    unique_by=lambda device: device.name,
)


@dataclass
class Domain:
    """What survives a crash of the daemon."""

    stored: Stored
    active: bool = False
    has: dict[str, ChosenDevice] = field(default_factory=dict)

    def observed(self) -> ObservedDomain:
        seen = tuple(
            AttachedDevice(f"ua-device-{name}", name, device.identity, device.is_mediated)
            for name, device in self.has.items()
        )
        state = DomainState.RUNNING if self.active else DomainState.OFF
        return ObservedDomain(state, stored=self.stored, devices=seen)


class Node(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.domains: dict[str, Domain] = {}
        self.holdings: dict[str, Holding] = {}
        self.starting: dict[str, Stored] = {}
        self.attaching: dict[str, tuple[Stored, ChosenDevice]] = {}
        self.made: dict[str, str] = {}

    # what the daemon sees

    def view(self, uid: str) -> HostView:
        left = PARTS - len(self.made)
        parts = FoundDevice(
            HOST[3].report.model_copy(update={"mediated_types": (MediatedType(name="t", available=left),)})
        )
        others = tuple(holding for other, holding in self.holdings.items() if other != uid)
        return HostView(NodeDevices((*HOST[:3], parts), dict(self.made)), others)

    def hold(self, uid: str, devices: tuple[ChosenDevice, ...]) -> None:
        self.holdings.pop(uid, None)
        if devices:
            self.holdings[uid] = Holding(uid, devices)

    def look(self, uid: str) -> None:
        """Reconcile as far as it concerns devices: hold what is seen, and learn that a guest has ended."""
        domain = self.domains[uid]
        if not domain.active and domain.stored.record.life is not Life.OFF:
            self.hold(uid, held(domain.stored.desired, domain.observed()))
            domain.stored = domain.stored.model_copy(update={"record": Record()})
        self.hold(uid, held(domain.stored.desired, domain.observed()))

    def give_back(self) -> None:
        kept = {d.mediated_uuid for holding in self.holdings.values() for d in holding.devices}
        self.made = {uuid: name for uuid, name in self.made.items() if uuid in kept}

    # what happens

    @initialize()
    def begin(self) -> None:
        for number, uid in enumerate(UIDS):
            machine = Machine(
                uid=uid, namespace="shop", name=f"m{number}", run=Run.RUNNING, hardware=Hardware(memory_bytes=1)
            )
            self.domains[uid] = Domain(new_stored(machine))

    @rule(uid=st.sampled_from(UIDS), devices=wishes)
    def put(self, uid: str, devices: list[MachineDevice]) -> None:
        domain = self.domains[uid]
        hardware = domain.stored.desired.hardware.model_copy(update={"devices": tuple(devices)})
        desired = domain.stored.desired.model_copy(update={"hardware": hardware})
        domain.stored = with_desired(domain.stored, desired)

    @rule(uid=st.sampled_from(UIDS))
    def choose_and_hold(self, uid: str) -> None:
        domain = self.domains[uid]
        if domain.active or uid in self.starting:
            return
        self.look(uid)
        asked = domain.stored.desired.hardware.devices
        choice = choose(uid, asked, domain.stored.devices, self.view(uid))
        if choice.obstacle:
            return
        self.hold(uid, choice.devices)
        record = Record(life=Life.STARTING)
        self.starting[uid] = domain.stored.model_copy(update={"devices": choice.devices, "record": record})

    @precondition(lambda self: self.starting)
    @rule(steps=st.integers(0, 3), pick=st.integers(0, 3))
    def start(self, steps: int, pick: int) -> None:
        """Make parts, keep the choice, start; the daemon dies after some of these."""
        uid = sorted(self.starting)[pick % len(self.starting)]
        stored, domain = self.starting.pop(uid), self.domains[uid]
        if stored.desired != domain.stored.desired:
            self.look(uid)
            return
        if steps > 0:
            self.made |= {d.mediated_uuid: d.mediated_uuid for d in stored.devices if d.is_mediated}
        if steps > 1:
            domain.stored = stored
        if steps > 2:
            domain.active, domain.has = True, {device.name: device for device in stored.devices}
            domain.stored = stored.model_copy(update={"record": Record(life=Life.RUNNING)})
            self.look(uid)
        else:
            self.crash()

    @rule(uid=st.sampled_from(UIDS), dies=st.booleans())
    def attach(self, uid: str, *, dies: bool) -> None:
        domain = self.domains[uid]
        if not domain.active:
            return
        self.look(uid)
        asked = domain.stored.desired.hardware.devices
        for wanted in asked:
            if wanted.name in domain.has:
                continue
            has = held(domain.stored.desired, domain.observed())
            choice = keep(uid, asked, has, wanted, self.view(uid))
            if choice.obstacle or any(device.companions for device in choice.devices):
                continue
            (chosen,) = choice.devices
            devices = (*(one for one in has if one.name != chosen.name), chosen)
            self.hold(uid, devices)
            domain.stored = domain.stored.model_copy(update={"devices": devices})
            if dies:
                self.crash()
                return
            if chosen.is_mediated:
                self.made[chosen.mediated_uuid] = chosen.mediated_uuid
            domain.has[wanted.name] = chosen

    @rule(uid=st.sampled_from(UIDS))
    def let_go(self, uid: str) -> None:
        domain = self.domains[uid]
        wanted = {device.name for device in domain.stored.desired.hardware.devices}
        domain.has = {name: device for name, device in domain.has.items() if name in wanted}
        if uid not in self.starting:
            self.look(uid)

    @rule(uid=st.sampled_from(UIDS), seen=st.booleans())
    def end(self, uid: str, *, seen: bool) -> None:
        domain = self.domains[uid]
        domain.active, domain.has = False, {}
        if seen and uid not in self.starting:
            self.look(uid)

    @rule()
    def tidy(self) -> None:
        self.give_back()

    @rule()
    def crash(self) -> None:
        self.starting, self.holdings = {}, {}
        for uid, domain in self.domains.items():
            self.hold(uid, held(domain.stored.desired, domain.observed()))
        self.give_back()

    # what must hold

    @invariant()
    def no_device_has_two_machines(self) -> None:
        there = {uid: tuple(domain.has.values()) for uid, domain in self.domains.items() if domain.active}
        for given in (there, {uid: holding.devices for uid, holding in self.holdings.items()}):
            owners: dict[object, set[str]] = {}
            for uid, devices in given.items():
                for device in devices:
                    for address in device.whole:
                        owners.setdefault(GROUPS.get(address, address), set()).add(uid)
            assert all(len(users) == 1 for users in owners.values())
            divided = {device.address for devices in given.values() for device in devices if device.is_mediated}
            whole = {address for devices in given.values() for device in devices for address in device.whole}
            assert not divided & whole

    @invariant()
    def no_more_parts_than_there_are(self) -> None:
        assert len(self.made) <= PARTS

    @invariant()
    def what_a_guest_has_is_kept(self) -> None:
        for domain in self.domains.values():
            kept = {(device.name, device.identity) for device in domain.stored.devices}
            assert {(name, device.identity) for name, device in domain.has.items()} <= kept


TestNode = Node.TestCase
