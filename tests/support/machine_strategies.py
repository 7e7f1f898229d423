"""Machines and nodes in any state that a document, a guest and a crash can bring about."""

from datetime import timedelta

from hypothesis import strategies as st

from machine_simulator import EPOCH, Node
from virtfleet_api.machine import (
    BlankSource,
    DiskCopySource,
    EmptySource,
    Hardware,
    IoLimits,
    IsoSource,
    Machine,
    MachineDisk,
    Restart,
    RetainedSource,
    Run,
    VolumeMode,
    VolumeSource,
)
from virtfleet_api.report import StopReason
from virtfleet_api.virtual_machine import DiskBus, ReclaimPolicy
from virtfleet_node.core.observed import DomainState, OffReason
from virtfleet_node.core.record import Life, Record, Stored

UID = "00000000-0000-4000-8000-000000000001"
ISOS = ("00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b")
OTHERS = ("00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b")
NAMES = ("root", "data", "logs")
VOLUMES = ("mail", "news")


def sources(name: str) -> st.SearchStrategy[BlankSource | DiskCopySource | RetainedSource]:
    """Return an empty disk, one that a machine has left behind, or a copy of that disk of one of two others."""
    copies = (DiskCopySource(machine_uid=uid, pool="default", name=name) for uid in OTHERS)
    return st.sampled_from((BlankSource(), RetainedSource(machine_uid=OTHERS[0], name=name), *copies))


limits = st.none() | st.builds(
    IoLimits,
    total_iops=st.sampled_from((0, 100, 200)),
    total_bytes_per_second=st.sampled_from((0, 1 << 20)),
    total_iops_burst=st.sampled_from((0, 400)),
    group=st.sampled_from((None, "shared")),
)

disks = st.lists(st.sampled_from(NAMES), unique=True).flatmap(
    lambda names: st.tuples(
        *(
            st.builds(
                MachineDisk,
                name=st.just(name),
                pool=st.just("default"),
                source=sources(name),
                size_bytes=st.just(1 << 20),
                reclaim_policy=st.sampled_from(ReclaimPolicy),
                limits=limits,
            )
            for name in names
        )
    )
)

drives = st.tuples() | st.tuples(
    st.builds(
        MachineDisk,
        name=st.just("cd"),
        pool=st.just("default"),
        source=st.sampled_from((EmptySource(), IsoSource(image_uid=ISOS[0]), IsoSource(image_uid=ISOS[1]))),
        bus=st.just(DiskBus.CDROM),
    )
)

volumes = st.lists(st.sampled_from(VOLUMES), unique=True).flatmap(
    lambda names: st.tuples(
        *(
            st.builds(
                MachineDisk,
                name=st.just(name),
                pool=st.just("default"),
                source=st.builds(
                    VolumeSource,
                    claim=st.sampled_from((f"{name}-old", f"{name}-new")),
                    mode=st.sampled_from(VolumeMode),
                    pod_uid=st.sampled_from(OTHERS),
                    volume=st.just(f"pvc-{name}"),
                ),
                size_bytes=st.sampled_from((None, 1 << 20)),
                reclaim_policy=st.sampled_from(ReclaimPolicy),
                limits=limits,
            )
            for name in names
        )
    )
)

machines = st.builds(
    Machine,
    uid=st.just(UID),
    namespace=st.just("default"),
    name=st.just("web"),
    run=st.sampled_from(Run),
    restart=st.sampled_from(Restart),
    start_token=st.sampled_from(("", "one", "two")),
    grace_period_seconds=st.sampled_from((0, 5, 60)),
    hardware=st.builds(
        lambda own, held, cd: Hardware(memory_bytes=1 << 28, disks=(*own, *held, *cd)),
        disks,
        volumes,
        drives,
    ),
)

moments = st.none() | st.integers(-1000, 1000).map(lambda seconds: EPOCH + timedelta(seconds=seconds))

records = st.builds(
    Record,
    served_token=st.sampled_from(("", "one", "two")),
    life=st.sampled_from(Life),
    started_at=moments,
    stopped_at=moments,
    stopping_since=moments,
    panicked=st.booleans(),
    last_stop=st.none() | st.sampled_from(StopReason),
    ended=st.booleans(),
    failures=st.integers(0, 20),
    start_error=st.sampled_from(("", "no such file")),
    detached=st.just(()),
)


@st.composite
def nodes(draw: st.DrawFn, desired: Machine) -> Node:
    state = draw(st.sampled_from(DomainState))
    stored = None
    if state is not DomainState.ABSENT:
        stored = Stored(desired=desired, record=draw(records))
    return Node(
        stored=stored,
        state=state,
        off_reason=draw(st.sampled_from(OffReason)),
        disks={("default", name) for name in draw(st.sets(st.sampled_from((*NAMES, *VOLUMES))))},
        kubelet=draw(st.integers(0, 4)),
        agent=draw(st.booleans()),
        deaf=draw(st.booleans()),
    )


pairs = machines.flatmap(lambda machine: st.tuples(st.just(machine), nodes(machine)))
