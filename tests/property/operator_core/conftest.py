"""Strategies for what the operator's core works on; tests ask for them by type (`st.from_type(VirtualMachine)`)."""

import string
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import strategies as st

from virtfleet_api.display import Display
from virtfleet_api.image import ImageFormat, ImageReport
from virtfleet_api.names import FINALIZER, NODE_LABEL
from virtfleet_api.network import Network, NicModel, UserNetwork
from virtfleet_api.quantity import Bytes
from virtfleet_api.report import (
    DiskReport,
    GuestReport,
    InterfaceReport,
    MachineReport,
    NodeReport,
    NumaCell,
    Phase,
    PoolReport,
    StopReason,
)
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.scheduling import (
    LabelSelector,
    SelectorOperator,
    SelectorRequirement,
    Taint,
    TaintEffect,
    Toleration,
    TolerationOperator,
)
from virtfleet_api.virtual_machine import (
    Blank,
    Clone,
    CloudInit,
    Cpu,
    Disk,
    DiskBus,
    DiskCache,
    DiskReference,
    DiskSource,
    ImageReference,
    KernelBoot,
    Memory,
    PowerState,
    ReclaimPolicy,
    RunStrategy,
    VirtualMachine,
    VirtualMachineSpec,
)
from virtfleet_api.vm_image import ImagePhase
from virtfleet_operator.core.place import Candidate, HugepageRoom, Load, Need, Neighbour, PoolRoom
from virtfleet_operator.core.placement.candidate import Cell
from virtfleet_operator.core.summarise import ImageFacts, MachineFacts
from virtfleet_operator.core.verdict import Invalid, Unschedulable, Waiting

MIB = 2**20
NODES = ("node-a", "node-b", "node-c")

labels = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12)
hostile = st.text(max_size=40)
uids = st.uuids().map(str)
times = st.datetimes(datetime(2026, 1, 1), datetime(2026, 11, 1), timezones=st.just(UTC))  # noqa: DTZ001  bounds are naive
sizes = st.integers(1, 4096).map(lambda n: Bytes(n * MIB))
counts = st.integers(-1, 2**70)  # what a lying node may say


def unique_by_name(item: st.SearchStrategy, limit: int) -> st.SearchStrategy:
    return st.lists(item, max_size=limit, unique_by=lambda x: x.name).map(tuple)


images = st.builds(ImageReference, name=labels, namespace=st.none() | labels)
blank_disks = st.builds(
    Disk,
    name=labels,
    size=sizes,
    source=st.just(DiskSource(blank=Blank())),
    pool=st.sampled_from(["default", "fast"]),
    bus=st.sampled_from([DiskBus.VIRTIO, DiskBus.SCSI]),
    cache=st.sampled_from(DiskCache),
    reclaim_policy=st.sampled_from(ReclaimPolicy),
)
image_disks = st.builds(
    Disk,
    name=labels,
    size=st.none() | sizes,
    source=st.builds(DiskSource, image=images, clone=st.none() | st.sampled_from(Clone)),
)
networks = st.builds(
    Network,
    name=labels,
    user=st.just(UserNetwork()),
    mac_address=st.none(),
    model=st.sampled_from(NicModel),
)
cloud_inits = st.none() | st.builds(
    CloudInit, user_data=st.none() | st.just("#cloud-config\n"), network_data=st.none() | st.just("version: 2\n")
)


copied_disks = st.builds(
    Disk,
    name=labels,
    source=st.builds(
        DiskSource,
        disk=st.tuples(labels, labels).map(
            lambda names: DiskReference(virtual_machine=f"of-{names[0]}", name=names[1])  # never the machine itself
        ),
        clone=st.none() | st.sampled_from(Clone),
    ),
)


@st.composite
def specs(draw: st.DrawFn) -> VirtualMachineSpec:
    """A valid spec."""
    strategy = draw(st.sampled_from(RunStrategy))
    powers = [None, *PowerState] if strategy == RunStrategy.MANUAL else [None, PowerState.RUNNING, PowerState.PAUSED]
    return VirtualMachineSpec(
        run_strategy=strategy,
        power_state=draw(st.sampled_from(powers)),
        restart_requested_at=draw(st.none() | times),
        cpu=draw(st.builds(Cpu, cores=st.none() | st.integers(1, 8), sockets=st.none() | st.integers(1, 4))),
        memory=Memory(guest=draw(st.integers(16, 4096).map(lambda n: Bytes(n * MIB)))),
        disks=draw(unique_by_name(blank_disks | image_disks | copied_disks, 4)),
        networks=draw(unique_by_name(networks, 3)),
        cloud_init=draw(cloud_inits),
        kernel_boot=draw(st.none() | st.builds(KernelBoot, image=images)),
        guest_agent=draw(st.booleans()),
        display=draw(st.none() | st.builds(Display)),
        node_selector=draw(st.dictionaries(labels, labels, max_size=2)),
    )


@st.composite
def metas(draw: st.DrawFn) -> ObjectMeta:
    """Metadata of a stored object, perhaps bound, perhaps being deleted, perhaps meddled with."""
    node = draw(st.none() | st.sampled_from(NODES))
    return ObjectMeta(
        name=draw(labels),
        namespace=draw(labels),
        uid=draw(uids),
        generation=draw(st.integers(1, 5)),
        labels={NODE_LABEL: node} if node else {},
        finalizers=(FINALIZER,) if draw(st.booleans()) else (),
        deletion_timestamp=draw(st.none() | times) if draw(st.booleans()) else None,
    )


new_meta = st.builds(ObjectMeta, name=labels, namespace=labels, uid=uids, generation=st.integers(1, 5))
addresses = st.ip_addresses().map(str) | hostile
machine_reports = st.builds(
    MachineReport,
    uid=uids,
    namespace=labels,
    name=labels,
    generation=st.integers(0, 7),
    phase=st.sampled_from(Phase),
    reason=st.sampled_from(["", "ImageFailed"]) | hostile,
    message=hostile,
    started_at=st.none() | times,
    restarts=counts,
    last_stop=st.none() | st.sampled_from(StopReason),
    machine_type=hostile,
    cpu_model=hostile,
    vcpus=st.integers(0, 4) | counts,
    memory_bytes=st.integers(0, 4).map(lambda n: n * MIB) | counts,
    disks=st.lists(
        st.builds(
            DiskReport,
            name=labels | hostile,
            pool=labels,
            target=hostile,
            capacity_bytes=counts,
            backing_image_uid=st.none() | uids,
        ),
        max_size=2,
    ).map(tuple),
    interfaces=st.lists(
        st.builds(InterfaceReport, name=labels, mac=hostile, ip_addresses=st.lists(addresses, max_size=20).map(tuple)),
        max_size=2,
    ).map(tuple),
    agent_connected=st.booleans(),
    guest=st.none() | st.builds(GuestReport, os=hostile, kernel=hostile, hostname=hostile),
    restart_required=st.lists(hostile, max_size=3).map(tuple),
)
machine_facts = st.builds(
    MachineFacts,
    verdict=st.none()
    | st.builds(Invalid, st.lists(hostile.map(ascii), min_size=1, max_size=2).map(tuple))
    | st.builds(Waiting, st.sampled_from(["ImageNotFound", "BindingLost"]), st.just("waits"))
    | st.builds(Unschedulable, st.just("0/1 nodes fit: 1 not ready")),
    node_name=st.none() | st.sampled_from(NODES),
    node_heard=st.booleans(),
    report=st.none() | machine_reports,
)
node_reports = st.builds(
    NodeReport,
    name=labels,
    daemon_version=hostile,
    libvirt_version=hostile,
    qemu_version=hostile,
    hypervisor=hostile,
    architecture=hostile,
    cpus=counts,
    cpu_frequency_hz=counts,
    memory_bytes=counts,
    numa=st.lists(st.builds(NumaCell, cell=counts, cpus=hostile, memory_bytes=counts), max_size=2).map(tuple),
    pools=st.lists(
        st.builds(
            PoolReport,
            name=labels,
            capacity_bytes=counts,
            free_bytes=counts,
            committed_bytes=counts,
            limit_bytes=st.none() | counts,
            watermark=hostile,
            nearly_full=st.booleans(),
            leaving=st.booleans(),
            problem=hostile,
        ),
        max_size=3,
        unique_by=lambda p: p.name,
    ).map(tuple),
    hypervisor_connected=st.booleans(),
)
image_reports = st.builds(
    ImageReport,
    uid=uids,
    namespace=labels,
    name=labels,
    phase=st.sampled_from(ImagePhase),
    reason=hostile,
    message=hostile,
    progress_percent=st.none() | st.integers(0, 100),
    format=st.none() | st.sampled_from(ImageFormat),
    virtual_size_bytes=st.none() | counts,
    actual_size_bytes=st.none() | counts,
)
taints = st.builds(
    Taint, key=st.sampled_from(["gpu", "old"]), value=st.sampled_from(["", "x"]), effect=st.sampled_from(TaintEffect)
)
tolerations = st.builds(
    Toleration,
    key=st.none() | st.sampled_from(["gpu", "old"]),
    operator=st.sampled_from(TolerationOperator),
    value=st.sampled_from(["", "x"]),
    effect=st.none() | st.sampled_from(TaintEffect),
)
requirements = st.builds(
    SelectorRequirement,
    key=st.sampled_from(["app", "tier"]),
    operator=st.sampled_from(SelectorOperator),
    values=st.lists(st.sampled_from(["db", "web", "gold"]), max_size=2).map(tuple),
)
selectors = st.builds(
    LabelSelector,
    match_labels=st.dictionaries(st.just("app"), st.sampled_from(["db", "web"])),
    match_expressions=st.lists(requirements, max_size=1).map(tuple),
)
models = ["host-model", "host-passthrough", "Nehalem"]
needs = st.builds(
    Need,
    vcpus=st.integers(1, 8),
    memory_bytes=st.integers(1, 8),
    pools=st.dictionaries(st.sampled_from(["default", "fast"]), st.integers(0, 8)),
    node_selector=st.dictionaries(st.just("zone"), st.sampled_from(["east", "west"])),
    reserved_hz=st.integers(0, 8),
    affinity=st.none(),
    tolerations=st.lists(tolerations, max_size=2).map(tuple),
    itself=st.just(Neighbour()),
    cpu_model=st.sampled_from(models),
    dedicated=st.booleans(),
    hugepage_bytes=st.none() | st.just(2),
    images=st.frozensets(st.sampled_from(["u1", "u2"])),
)
candidates = st.builds(
    Candidate,
    name=labels,
    unready=st.sampled_from(["", "", "", "not ready", "being deleted", "in maintenance"]),
    labels=st.dictionaries(st.just("zone"), st.sampled_from(["east", "west"])),
    pools=st.dictionaries(
        st.sampled_from(["default", "fast"]), st.builds(PoolRoom, st.booleans(), st.none() | st.integers(-2, 16))
    ),
    vcpus=st.integers(0, 16),
    memory_bytes=st.integers(0, 16),
    load=st.builds(
        Load,
        machines=st.integers(0, 3),
        vcpus=st.integers(0, 16),
        memory_bytes=st.integers(0, 16),
        reserved_hz=st.integers(0, 16),
        dedicated_cpus=st.just(0),
        hugepages=st.dictionaries(st.just(2), st.integers(0, 8)),
    ),
    reserved_hz=st.integers(0, 16),
    cpu_hz=st.integers(0, 4),
    taints=st.lists(taints, max_size=2).map(tuple),
    cpus=st.integers(0, 8),
    architecture=st.just("x86_64"),
    cpu_models=st.frozensets(st.sampled_from(models[1:])),
    hugepages=st.dictionaries(st.just(2), st.builds(HugepageRoom, st.integers(0, 16), st.integers(0, 16))),
    cells=st.lists(st.builds(Cell, st.integers(0, 4), st.integers(0, 8)), max_size=2).map(tuple),
)

st.register_type_strategy(UUID, st.uuids())
st.register_type_strategy(VirtualMachineSpec, specs())
st.register_type_strategy(VirtualMachine, st.builds(VirtualMachine, metadata=new_meta, spec=specs()))
st.register_type_strategy(ObjectMeta, metas())
st.register_type_strategy(MachineReport, machine_reports)
st.register_type_strategy(MachineFacts, machine_facts)
st.register_type_strategy(NodeReport, node_reports)
st.register_type_strategy(
    ImageFacts,
    st.builds(
        ImageFacts,
        problems=st.lists(labels, max_size=1),
        reports=st.dictionaries(st.sampled_from(NODES), image_reports),
        users=st.lists(labels, max_size=2),
    ),
)
st.register_type_strategy(Need, needs)
st.register_type_strategy(Candidate, candidates)
st.register_type_strategy(LabelSelector, selectors)
