"""Whether a guest of some type really runs is found out by trying one that does what operating systems do first."""

import subprocess
from pathlib import Path

import libvirt
import pytest

from virtfleet_dev.node import Node
from virtfleet_node.core.desired.guest import DomainType
from virtfleet_node.hypervisor import probe

SOURCE = Path(probe.__file__).with_name("probe_guest.S")


def test_an_emulated_guest_gets_to_its_end_and_leaves_nothing(libvirt_node: Node, tmp_path: Path) -> None:
    connection = libvirt.open(libvirt_node.uri)
    assert probe.guest_progresses(connection, tmp_path, DomainType.QEMU)
    assert list(tmp_path.iterdir()) == []
    assert not [d for d in connection.listAllDomains() if d.name().startswith("virtfleet-probe")]


def test_a_guest_that_hangs_on_the_way_does_not(
    libvirt_node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under a KVM that runs firmware, but delivers no exception: the breakpoint is made to halt."""
    breakpoint_, halt = b"\x31\xdb\xcc", b"\x31\xdb\xf4"
    content = SOURCE.with_suffix(".bin").read_bytes()
    assert content.count(breakpoint_) == 1
    hanging = tmp_path / "hanging.bin"
    hanging.write_bytes(content.replace(breakpoint_, halt))
    monkeypatch.setattr(probe, "_KERNEL", hanging)
    monkeypatch.setattr(probe, "PROGRESS_SECONDS", 2.0)
    assert not probe.guest_progresses(libvirt.open(libvirt_node.uri), tmp_path, DomainType.QEMU)


def test_the_guest_is_what_its_source_says(tmp_path: Path) -> None:
    built, linked = tmp_path / "guest.o", tmp_path / "guest.bin"
    subprocess.run(["gcc", "-c", "-o", built, SOURCE], check=True)
    link = ["ld", "-m", "elf_x86_64", "-N", "-e", "0x100000", "-Ttext=0x100000", "--oformat", "binary"]
    subprocess.run([*link, "-o", linked, built], check=True)
    assert linked.read_bytes() == SOURCE.with_suffix(".bin").read_bytes()


def test_a_node_tells_the_cpu_models_that_its_guests_can_have(
    libvirt_node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each that is told is held against libvirt itself, which refuses to start a guest with one that is not usable."""
    monkeypatch.setattr(probe, "kvm_works", lambda *_: False)
    connection = libvirt.open(libvirt_node.uri)
    facts = probe.read_host_facts(connection, tmp_path)
    assert facts.emulator
    assert facts.cpu_models[0] == "host-passthrough"  # emulation gives QEMU's own default for it
    assert {"qemu64", "Nehalem"} <= set(facts.cpu_models)
    assert "host-model" not in facts.cpu_models
    known = connection.getCPUModelNames("x86_64")
    assert set(facts.cpu_models[1:]) <= {*known, "max", "base"}
