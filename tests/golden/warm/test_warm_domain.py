"""What a guest that goes on from memory is started with: the devices as they were, and other things behind them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from virtfleet_api.display import DisplayModel
from virtfleet_api.image import ImageFormat
from virtfleet_api.machine import (
    BlankSource,
    Hardware,
    IsoSource,
    Machine,
    MachineDisk,
    MachineInterface,
    Run,
)
from virtfleet_api.virtual_machine import DiskBus
from virtfleet_node.core.desired.domain import build_domain_xml
from virtfleet_node.core.desired.guest import DomainType, FileLayer, Guest, HostFacts, ResolvedDisk, ResolvedPaths
from virtfleet_node.core.errors import ConflictError
from virtfleet_node.core.numa.pins import GuestCell, MemoryMode, Pinning
from virtfleet_node.core.places import Places, assign
from virtfleet_node.core.record import new_stored
from virtfleet_node.core.warm_domain import Saved, WarmDomain, WarmFiles, build_warm_domain

HERE = Path(__file__).parent
SOURCE, OTHER = "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0", "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f1"
IMAGE = "aaaaaaaa-0000-4000-8000-000000000000"
PORT, OTHER_PORT = "bbbbbbbb-0000-4000-8000-000000000000", "bbbbbbbb-0000-4000-8000-000000000001"
DISKS = Path("/pools/default/disks")
FACTS = HostFacts(DomainType.KVM, "/usr/bin/qemu-system-x86_64")
PINNING = Pinning((frozenset({1}), frozenset({2})), frozenset({1, 2}), frozenset({0}), MemoryMode.STRICT)


def hardware(port: str, last: int) -> Hardware:
    return Hardware(
        memory_bytes=1 << 30,
        cores=2,
        disks=(
            MachineDisk(name="root", pool="default", source=BlankSource(), size_bytes=1 << 30),
            MachineDisk(name="data", pool="default", source=BlankSource(), size_bytes=1 << 30, bus=DiskBus.SCSI),
            MachineDisk(name="installer", pool="default", source=IsoSource(image_uid=IMAGE), bus=DiskBus.CDROM),
        ),
        interfaces=(
            MachineInterface(name="eth0", mac=f"52:54:00:00:00:0{last}", port=port, mtu=1442),
            MachineInterface(name="eth1", mac=f"52:54:00:00:01:0{last}"),
        ),
        cloud_init_digest=str(last) * 64,
    )


def machine(uid: str, name: str, wanted: Hardware) -> Machine:
    return Machine(uid=uid, namespace="default", name=name, run=Run.RUNNING, hardware=wanted)


MACHINE = machine(SOURCE, "web", hardware(PORT, 1))
PLACES = assign(Places(), MACHINE.hardware)


def files(uid: str, layer: str = "") -> tuple[dict[str, ResolvedDisk], Path, Path]:
    image = FileLayer(Path("/pools/default/images") / IMAGE / "disk", ImageFormat.QCOW2)
    below = FileLayer(DISKS / SOURCE / "root.qcow2", ImageFormat.QCOW2)
    root = FileLayer(DISKS / uid / f"root{layer}.qcow2", ImageFormat.QCOW2)
    data = FileLayer(DISKS / uid / f"data{layer}.qcow2", ImageFormat.QCOW2)
    state = Path("/var/lib/virtfleet/machines") / uid
    disks = {"root": ResolvedDisk(root, (below, image) if layer else (image,)), "data": ResolvedDisk(data)}
    return disks, state / "cloud-init.iso", state / "console.log"


def saved() -> Saved:
    """Return what libvirt keeps of a running guest: what it was started with."""
    disks, medium, log = files(SOURCE)
    media = {"installer": Path("/pools/default/images") / IMAGE / "disk.iso"}
    guest = Guest(
        MACHINE,
        FACTS,
        ResolvedPaths(console_log=log, disks=disks, media=media, cloud_init=medium),
        PLACES,
        pinning=PINNING,
        cells=(GuestCell(frozenset({0, 1}), 1 << 30, 0),),
    )
    return Saved(build_domain_xml(guest, new_stored(MACHINE)), MACHINE.hardware, PLACES)


def warm(target: Machine, layer: str = ".2") -> WarmDomain:
    disks, medium, log = files(target.uid, layer)
    media = {"installer": Path("/pools/default/images") / IMAGE / "disk.iso"}
    return build_warm_domain(saved(), target, WarmFiles(disks, log, medium, media))


def pretty(domain: WarmDomain) -> str:
    plain = etree.fromstring(domain.build_xml(), etree.XMLParser(remove_blank_text=True))
    return etree.tostring(plain, encoding="unicode", pretty_print=True)


def test_in_place_only_the_files_of_disks_change(golden: Callable[[Path, str], None]) -> None:
    domain = warm(MACHINE)
    golden(HERE / "in-place.xml", pretty(domain))
    assert (domain.strangers, domain.places, domain.hardware) == ((), PLACES, MACHINE.hardware)


def test_a_new_machine_has_nothing_of_the_other_behind_its_devices(golden: Callable[[Path, str], None]) -> None:
    target = machine(OTHER, "copy", hardware(OTHER_PORT, 2))
    domain = warm(target)
    golden(HERE / "new-machine.xml", pretty(domain))
    assert domain.strangers == ("ua-card-_eth0", "ua-card-_eth1")
    assert PORT not in pretty(domain)
    assert domain.hardware == MACHINE.hardware.model_copy(update={"cloud_init_digest": "2" * 64})
    old = {key: port for key, port in PLACES.ports.items() if not key.startswith("card/")}
    assert {key: port for key, port in domain.places.ports.items() if not key.startswith("card/")} == old
    for name in ("eth0", "eth1"):
        assert domain.places.ports[f"card/_{name}"] == PLACES.ports[f"card/{name}"]
        assert domain.places.ports[f"card/{name}"] not in PLACES.ports.values()


def test_a_display_stays_as_it_was_and_names_nothing_of_the_host() -> None:
    shown = MACHINE.model_copy(update={"hardware": MACHINE.hardware.model_copy(update={"display": DisplayModel.VGA})})
    disks, medium, log = files(SOURCE)
    guest = Guest(shown, FACTS, ResolvedPaths(console_log=log, disks=disks), assign(PLACES, shown.hardware))
    description = build_domain_xml(guest, new_stored(shown))
    wanted = WarmFiles(disks, log, medium)
    domain = build_warm_domain(Saved(description, shown.hardware, guest.places), MACHINE, wanted)
    before = etree.fromstring(description).find("devices")
    for tag in ("input", "graphics", "video"):
        assert [etree.tostring(found, method="c14n") for found in domain.domain.findall(f"devices/{tag}")] == [
            etree.tostring(found, method="c14n") for found in before.findall(tag)
        ]
    assert domain.hardware.display is DisplayModel.VGA


def test_a_card_whose_document_has_changed_since_is_replaced() -> None:
    changed = MACHINE.hardware.interfaces[0].model_copy(update={"port": OTHER_PORT})
    interfaces = (changed, MACHINE.hardware.interfaces[1])
    target = MACHINE.model_copy(update={"hardware": MACHINE.hardware.model_copy(update={"interfaces": interfaces})})
    assert warm(target).strangers == ("ua-card-_eth0",)


def test_cards_for_which_no_port_is_free_get_those_of_the_cards_that_go() -> None:
    cards = tuple(MachineInterface(name=f"n{number}", mac=f"52:54:00:00:02:{number:02}") for number in range(8))
    wanted = hardware(OTHER_PORT, 2)
    target = machine(OTHER, "copy", wanted.model_copy(update={"interfaces": (*cards, *wanted.interfaces)}))
    ports = warm(target).places.ports
    assert (ports["card/eth0"], ports["card/eth1"]) == (PLACES.ports["card/eth0"], PLACES.ports["card/eth1"])


def test_a_guest_without_a_file_for_one_of_its_disks_is_refused() -> None:
    disks, medium, log = files(SOURCE)
    with pytest.raises(ConflictError, match="had a disk data, for which the machine has none"):
        build_warm_domain(saved(), MACHINE, WarmFiles({"root": disks["root"]}, log, medium))


def test_what_is_kept_and_where_it_runs_is_written_anew() -> None:
    domain = warm(MACHINE)
    guest = Guest(MACHINE, FACTS, ResolvedPaths(console_log=Path("/log")), PLACES, pinning=PINNING)
    xml = etree.fromstring(domain.build_xml(guest, new_stored(MACHINE)))
    assert xml.find("vcpu").get("cpuset") == "1-2"
    assert len(xml.findall("cputune/vcpupin")) == 2
    assert xml.find("metadata") is not None
    assert etree.fromstring(domain.build_xml()).find("metadata") is None
