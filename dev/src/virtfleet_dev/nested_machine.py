"""The nested host as QEMU's command line: what hardware it has.

Two NUMA cells, an IOMMU, display devices that stand for GPUs (some of them near to one cell), and two SR-IOV network
cards on one wire. The processor is emulated, so that it runs on machines without KVM, and virtual ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SSH_PORT = 22
CELL_BYTES = 2 << 30
"""Memory of each of the two cells."""

NIC_MACS = ("52:54:00:00:10:01", "52:54:00:00:10:02")
"""The SR-IOV cards'; what one sends comes in by the other."""

_TRANSLATED_CODE_MIB = 1024  # with QEMU's default, code is thrown away and translated again all the time

# Options of the kernel that save time under emulation; none changes what the tests look at.
_COMMAND_LINE = (
    "console=ttyS0 root=/dev/vda rw intel_iommu=on iommu=pt mitigations=off nokaslr apparmor=0 audit=0 quiet loglevel=4"
)

_CELLS = (
    *("-machine", "q35,kernel-irqchip=split,hmat=off", "-m", f"{2 * CELL_BYTES >> 20}M"),
    *("-smp", "4,sockets=2,cores=2,threads=1"),
    *(
        word
        for cell, cpus in enumerate(("0-1", "2-3"))
        for word in (
            *("-object", f"memory-backend-ram,id=memory{cell},size={CELL_BYTES}"),
            *("-numa", f"node,nodeid={cell},cpus={cpus},memdev=memory{cell}"),
        )
    ),
    *("-numa", "dist,src=0,dst=1,val=20", "-numa", "dist,src=1,dst=0,val=20"),
)

_DEVICES = (
    "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on,aw-bits=48",
    # Display devices, alone in their IOMMU groups, at no cell. Without a ROM: a firmware would write on their
    # screens for seven seconds.
    "pcie-root-port,id=port1,chassis=1,slot=1,addr=8",
    "bochs-display,bus=port1,romfile=",
    "pcie-root-port,id=port2,chassis=2,slot=2,addr=9",
    "bochs-display,bus=port2,romfile=",
    "pcie-root-port,id=port3,chassis=3,slot=3,addr=0xa",
    "secondary-vga,bus=port3,romfile=",
    "pcie-root-port,id=port4,chassis=4,slot=4,addr=0xb",
    f"igb,bus=port4,netdev=wire0,mac={NIC_MACS[0]},romfile=",
    "pcie-root-port,id=port5,chassis=5,slot=5,addr=0xc",
    f"igb,bus=port5,netdev=wire1,mac={NIC_MACS[1]},romfile=",
    "edu,addr=0xd",
    # Behind these bridges, devices are at a cell: one display device at the first, two at the second.
    "pxb-pcie,id=cell0,bus_nr=0x40,bus=pcie.0,numa_node=0,addr=0xf",
    "pcie-root-port,id=port16,bus=cell0,chassis=16,slot=16,addr=0",
    "bochs-display,bus=port16,romfile=",
    "pxb-pcie,id=cell1,bus_nr=0x80,bus=pcie.0,numa_node=1,addr=0x10",
    "pcie-root-port,id=port17,bus=cell1,chassis=17,slot=17,addr=0",
    "bochs-display,bus=port17,romfile=",
    "pcie-root-port,id=port18,bus=cell1,chassis=18,slot=18,addr=1",
    "virtio-gpu-pci,bus=port18",
)

_WIRE = ("-netdev", "hubport,id=wire0,hubid=1", "-netdev", "hubport,id=wire1,hubid=1")


@dataclass(frozen=True)
class Places:
    """What differs between one run and another."""

    disk: Path
    """A qcow2 file, which is written to."""
    shared: Path
    """The folder that the host is shown, read-only, by 9p with the tag `shared`."""
    port: int
    """The port of 127.0.0.1 that leads to the host's ssh."""
    console: Path
    control: Path
    """The socket of QMP."""


def qemu_command(tools: Path) -> tuple[str, ...]:
    """Return the words that start QEMU as it lies in a tool root, without installing that."""
    libraries = tools / "usr/lib/x86_64-linux-gnu"
    return (
        *("env", f"QEMU_MODULE_DIR={libraries}/qemu"),
        *(str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)),
        str(tools / "usr/bin/qemu-system-x86_64"),
        *(
            "-L",
            str(tools / "usr/share/qemu"),
            "-L",
            str(tools / "usr/share/seabios"),
            "-L",
            str(tools / "usr/lib/ipxe/qemu"),
        ),
    )


def machine_arguments(files: Path, places: Places) -> Sequence[str]:
    """Return QEMU's arguments for a host whose kernel lies in `files`. A saved state fits the same arguments alone."""
    return (
        *("-name", "nested", "-accel", f"tcg,thread=multi,tb-size={_TRANSLATED_CODE_MIB}"),
        *("-cpu", "Nehalem"),  # the fastest for what is emulated inside, which `max` is not
        *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
        *_CELLS,
        *_WIRE,
        *("-kernel", str(files / "vmlinuz"), "-initrd", str(files / "initrd"), "-append", _COMMAND_LINE),
        # What it writes is never needed after a crash of this machine.
        *("-drive", f"if=none,id=disk,file={places.disk},format=qcow2,cache=unsafe,aio=threads"),
        *("-device", "virtio-blk-pci,drive=disk,addr=2"),
        *("-netdev", f"user,id=user,restrict=on,hostfwd=tcp:127.0.0.1:{places.port}-:{SSH_PORT}"),
        *("-device", "virtio-net-pci,netdev=user,mac=52:54:00:00:00:01,addr=3,romfile="),
        *("-fsdev", f"local,id=shared,path={places.shared},security_model=none,readonly=on"),
        *("-device", "virtio-9p-pci,fsdev=shared,mount_tag=shared,addr=4"),
        *("-device", "virtio-rng-pci,addr=6"),
        *(word for device in _DEVICES for word in ("-device", device)),
        *("-serial", f"file:{places.console}"),
        *("-qmp", f"unix:{places.control},server=on,wait=off"),
    )
