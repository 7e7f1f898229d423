from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.display import DisplayModel
from virtfleet_api.machine import BlankSource, Hardware, MachineDisk, MachineInterface
from virtfleet_api.virtual_machine import DiskBus
from virtfleet_node.core.places import CLOUD_INIT, Places, assign, reassign

NAMES = ("root", "data", "logs", "swap", "a", "b")

disks = st.lists(
    st.builds(
        MachineDisk,
        name=st.sampled_from(NAMES),
        pool=st.just("default"),
        source=st.just(BlankSource()),
        bus=st.sampled_from(DiskBus),
    ),
    unique_by=lambda disk: disk.name,
).map(tuple)
cards = st.lists(st.sampled_from(("eth0", "eth1", "eth2")), unique=True).map(
    lambda names: tuple(MachineInterface(name=name, mac="52:54:00:00:00:01") for name in names)
)
hardware = st.builds(
    Hardware,
    memory_bytes=st.just(1 << 28),
    disks=disks,
    interfaces=cards,
    cloud_init_digest=st.none() | st.just("a" * 64),
    display=st.none() | st.sampled_from(DisplayModel),
)


def wanted(of: Hardware) -> set[str]:
    return {disk.name for disk in of.disks} | ({CLOUD_INIT} if of.cloud_init_digest else set())


@given(st.lists(hardware, min_size=1))
def test_nothing_ever_moves_and_no_place_is_given_twice(documents: list[Hardware]) -> None:
    places = Places()
    for document in documents:
        before, places = places, assign(places, document)
        assert before.ports.items() <= places.ports.items()
        stayed = {disk.name: disk.bus for disk in document.disks}
        for name, target in before.targets.items():
            assert places.targets[name] == target or target[:2] != ("vd" if stayed[name] == "virtio" else "sd")
        for given_away in (places.ports.values(), places.targets.values()):
            assert len(set(given_away)) == len(given_away)
        assert wanted(document) <= places.targets.keys()
        assert all(places.targets[d.name][:2] == ("vd" if d.bus == "virtio" else "sd") for d in document.disks)


@given(hardware, hardware)
def test_a_start_takes_back_only_what_nobody_has_any_more(first: Hardware, second: Hardware) -> None:
    kept = assign(Places(), first)
    places = reassign(kept, second)
    assert places.targets.keys() == wanted(second)
    assert all(places.ports[device] == port for device, port in kept.ports.items() if device in places.ports)
    assert assign(places, second) == places


@given(hardware)
def test_a_new_machine_has_its_devices_in_order(of: Hardware) -> None:
    places = assign(Places(), of)
    assert sorted(places.ports.values()) == list(range(1, len(places.ports) + 1))
    virtio = [places.ports[f"disk/{disk.name}"] for disk in of.disks if disk.bus is DiskBus.VIRTIO]
    assert virtio == sorted(virtio)
