"""Files that somebody might offer as an image, each with the reason for which it must be refused.

Those that try to read a file of the host name the canary: it lies beside them, and nothing of it may ever be seen.
"""

import functools
import io
import os
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pycdlib

from virtfleet_api.vm_image import ImageType

MAGIC = b"QFI\xfb"
Make = Callable[[Path], None]


def canary(path: Path) -> Path:
    """Return the file beside a hostile one that it must not get at."""
    return path.with_name("canary")


def header(
    *,
    version: int = 3,
    backing: bytes = b"",
    cluster_bits: int = 16,
    size: int = 1 << 20,
    crypt: int = 0,
    l1_size: int = 1,
    l1_offset: int = 3 << 16,
    refcount_offset: int = 2 << 16,
    refcount_clusters: int = 1,
    refcount_order: int = 4,
    incompatible: int = 0,
    autoclear: int = 0,
    header_bytes: int = 104,
    snapshots: int = 0,
    extensions: bytes = b"",
) -> bytes:
    """Return a qcow2 header that says this, padded to five clusters."""
    offset = 104 + len(extensions) + 8 if backing else 0
    tables = (l1_size, l1_offset, refcount_offset, refcount_clusters, snapshots, 0)
    head = MAGIC + struct.pack(">IQIIQIIQQIIQ", version, offset, len(backing), cluster_bits, size, crypt, *tables)
    head += struct.pack(">QQQII", incompatible, 0, autoclear, refcount_order, header_bytes)
    return (head + extensions + bytes(8) + backing).ljust(5 << 16, b"\0")


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data.ljust((len(data) + 7) // 8 * 8, b"\0")


def qemu_img(*words: str) -> Make:
    """Return a maker that has qemu-img make the file, which is written as @; the canary as %."""

    def make(path: Path) -> None:
        filled = [word.replace("@", str(path)).replace("%", str(canary(path))) for word in words]
        subprocess.run(["qemu-img", *filled], check=True, capture_output=True)

    return make


@functools.cache
def valid(options: str = "", size: str = "1M") -> bytes:
    """Return a good qcow2, to be spoilt."""
    with tempfile.TemporaryDirectory(prefix="virtfleet-") as folder:
        path = Path(folder, "valid")
        qemu_img("create", "-q", "-f", "qcow2", *(("-o", options) if options else ()), "@", size)(path)
        return path.read_bytes()


def patched(offset: int, data: bytes, options: str = "") -> Make:
    """Return a maker of a good qcow2 with other bytes at an offset."""

    def make(path: Path) -> None:
        good = valid(options)
        path.write_bytes(good[:offset] + data + good[offset + len(data) :])

    return make


def cut(size: int, options: str = "preallocation=metadata", virtual: str = "512M") -> Make:
    """Return a maker of a good qcow2 that ends too early."""
    return lambda path: path.write_bytes(valid(options, virtual)[:size]) and None


def content(data: bytes) -> Make:
    """Return a maker of a file with this content."""
    return lambda path: path.write_bytes(data) and None


def backed(name: str, **fields: int) -> Make:
    """Return a maker of a qcow2 with a backing file; % is the canary."""
    return lambda path: (
        path.write_bytes(header(backing=name.replace("%", str(canary(path))).encode(), **fields)) and None
    )


def disc(*, udf: bool = False, boot: bytes = b"") -> bytes:
    """Return a CD image with one file, perhaps with UDF beside ISO 9660, and with something before the file system."""
    image = pycdlib.PyCdlib()
    image.new(udf="2.60" if udf else None)
    image.add_fp(io.BytesIO(b"hello\n"), 6, "/HELLO.TXT;1", **({"udf_path": "/hello.txt"} if udf else {}))
    medium = io.BytesIO()
    image.write_fp(medium)
    image.close()
    return boot + medium.getvalue()[len(boot) :]


def descriptors(*names: bytes) -> bytes:
    """Return an image with these volume descriptors and nothing else, as a pure UDF image has."""
    return bytes(32768) + b"".join(b"\0" + name + b"\1".ljust(2042, b"\0") for name in names)


def sparse(data: bytes, size: int) -> Make:
    """Return a maker of a file with a beginning and a long hole."""

    def make(path: Path) -> None:
        path.write_bytes(data)
        os.truncate(path, size)

    return make


def looped(path: Path) -> None:
    """An image that names itself as its backing file."""
    path.write_bytes(header(backing=str(path).encode()))


def snapshotted(path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "@", "1M")(path)
    qemu_img("snapshot", "-c", "one", "@")(path)


def external_data(path: Path) -> None:
    options = f"data_file={path.with_suffix('.data')},data_file_raw=on"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, "@", "1M")(path)


def external_canary(path: Path) -> None:
    path.write_bytes(header(incompatible=4, extensions=extension(0x44415441, str(canary(path)).encode())))


def descriptor(first: str, kind: str) -> Make:
    """Return a maker of a VMDK descriptor whose extent is the canary."""
    return lambda path: path.write_bytes(f'{first}RW 2048 {kind} "{canary(path)}" 0\n'.encode().ljust(1024)) and None


def shared_cluster(path: Path) -> None:
    """Every guest cluster lies in one host cluster: a small file that is a whole disk of data when it is copied."""
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", str(path)], check=True, capture_output=True)
    with path.open("r+b") as file:
        (l1,) = struct.unpack(">Q", file.read(48)[40:])
        file.seek(l1)
        (l2,) = struct.unpack(">Q", file.read(8))
        file.seek(l2 & ((1 << 56) - 1))
        entry = file.read(8)
        file.seek(-8, os.SEEK_CUR)
        file.write(entry * 16)


def bomb(path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "@", "1M")(path)
    shared_cluster(path)


UNSAFE, UNSUPPORTED = "UnsafeImage", "UnsupportedFormat"
BACKING_FORMAT, DATA_FILE, CRYPTO, BITMAPS = 0xE2792ACA, 0x44415441, 0x0537BE77, 0x23852875

CORPUS: dict[str, tuple[str, Make]] = {
    # another file by the backing name
    "backing file on the host": (UNSAFE, qemu_img("create", "-qu", "-f", "qcow2", "-b", "%", "-F", "raw", "@", "1M")),
    "backing file by json:": (UNSAFE, backed('json:{"driver":"raw","file.filename":"%"}')),
    "backing file by json: with a protocol": (UNSAFE, backed('json:{"driver":"nbd","host":"10.0.0.1"}')),
    "backing file by file:": (UNSAFE, backed("file:%")),
    "backing file by host_device": (UNSAFE, backed("host_device:/dev/sda")),
    "backing file by blkdebug": (UNSAFE, backed("blkdebug::%")),
    "backing file by fat": (UNSAFE, backed("fat:rw:/etc")),
    "backing file by nbd": (UNSAFE, backed("nbd://10.0.0.1:10809/x")),
    "backing file by nbd over a socket": (UNSAFE, backed("nbd:unix:/run/libvirt/libvirt-sock")),
    "backing file by ssh": (UNSAFE, backed("ssh://root@10.0.0.1/etc/shadow")),
    "backing file by http": (UNSAFE, backed("http://169.254.169.254/latest/meta-data")),
    "backing file by iscsi": (UNSAFE, backed("iscsi://10.0.0.1/iqn.x/0")),
    "backing file by rbd": (UNSAFE, backed("rbd:pool/image:conf=/etc/ceph/ceph.conf")),
    "backing file by nvme": (UNSAFE, backed("nvme://0000:01:00.0/1")),
    "backing file by /dev/fd": (UNSAFE, backed("/dev/fd/0")),
    "backing file by /proc": (UNSAFE, backed("/proc/self/environ")),
    "backing file beside it": (UNSAFE, backed("canary")),
    "backing file above it": (UNSAFE, backed("../../../../../../etc/shadow")),
    "backing file is itself": (UNSAFE, looped),
    "backing file in version 2": (UNSAFE, backed("%", version=2)),
    "backing name out of bounds": (UNSAFE, content(header(backing=b"x" * 4096))),
    "backing name within the header": (UNSAFE, patched(8, struct.pack(">QI", 4, 4))),
    "backing name at the end of the world": (UNSAFE, patched(8, struct.pack(">QI", (1 << 64) - 2, 100))),
    "backing name of no length": (UNSAFE, patched(8, struct.pack(">QI", 1 << 15, 0))),
    # another file for the data
    "external data file": (UNSAFE, external_data),
    "external data file on the host": (UNSAFE, external_canary),
    "external data flag alone": (UNSAFE, content(header(incompatible=4))),
    "external data name alone": (UNSAFE, content(header(extensions=extension(DATA_FILE, b"/etc/shadow")))),
    # sizes and tables
    "2 PB": (UNSAFE, content(header(size=2 << 50))),
    "8 EB": (UNSAFE, content(header(size=(1 << 63) - 512))),
    "size zero": (UNSAFE, content(header(size=0))),
    "huge L1 table": (UNSAFE, content(header(l1_size=0xFFFFFFFF))),
    "L1 table beyond the file": (UNSAFE, content(header(size=64 << 40, l1_size=1 << 17))),
    "L1 table too short for the size": (UNSAFE, content(header(size=1 << 40, l1_size=1))),
    "L1 table not aligned": (UNSAFE, patched(40, struct.pack(">Q", 12345))),
    "L1 table over the header": (UNSAFE, patched(40, struct.pack(">Q", 0))),
    "refcount table beyond the file": (UNSAFE, patched(48, struct.pack(">Q", 1 << 60))),
    "refcount table not aligned": (UNSAFE, patched(48, struct.pack(">Q", 777))),
    "refcount table that is huge": (UNSAFE, patched(56, struct.pack(">I", 0xFFFFFFFF))),
    "refcount table of no clusters": (UNSAFE, patched(56, struct.pack(">I", 0))),
    "refcounts of 2^60 bits": (UNSAFE, patched(96, struct.pack(">I", 60))),
    "refcounts that are all wrong": (UNSAFE, patched(2 << 16, b"\xff" * 4096)),
    "many clusters on one": (UNSAFE, bomb),
    "tiny clusters": (UNSAFE, content(header(cluster_bits=3))),
    "clusters of one byte": (UNSAFE, content(header(cluster_bits=0))),
    "huge clusters": (UNSAFE, content(header(cluster_bits=63))),
    # features, encryption, snapshots, extensions
    "unknown feature": (UNSAFE, content(header(incompatible=1 << 40))),
    "marked corrupt": (UNSAFE, content(header(incompatible=2))),
    "compression that is not known": (UNSAFE, content(header(incompatible=8, header_bytes=112))),
    "AES encryption": (UNSAFE, content(header(crypt=1))),
    "LUKS encryption": (
        UNSAFE,
        content(header(crypt=2, extensions=extension(CRYPTO, struct.pack(">QQ", 1 << 16, 99)))),
    ),
    "encryption that is not known": (UNSAFE, content(header(crypt=77))),
    "internal snapshots": (UNSAFE, snapshotted),
    "snapshots that are not there": (UNSAFE, content(header(snapshots=70000))),
    "version 0": (UNSAFE, content(header(version=0))),
    "version 1": (UNSAFE, content(header(version=1))),
    "version 9": (UNSAFE, content(header(version=9))),
    "header of no length": (UNSAFE, patched(100, struct.pack(">I", 0))),
    "header longer than the file": (UNSAFE, patched(100, struct.pack(">I", 0xFFFFFFF8))),
    "extension out of bounds": (UNSAFE, content(header(extensions=struct.pack(">II", 0x6803F857, 1 << 30)))),
    "extension with a backing format that is too long": (
        UNSAFE,
        content(header(extensions=extension(BACKING_FORMAT, b"r" * 200))),
    ),
    "bitmaps that are not there": (
        UNSAFE,
        content(header(autoclear=1, extensions=extension(BITMAPS, struct.pack(">IIQQ", 9, 0, 24, 1 << 50)))),
    ),
    # ends too early
    "header cut off": (UNSAFE, content(MAGIC + b"\0\0\0\3")),
    "the magic alone": (UNSAFE, content(MAGIC)),
    "ends after the header": (UNSAFE, cut(104)),
    "ends within the first cluster": (UNSAFE, cut(65536)),
    "ends within its tables": (UNSAFE, cut(200_000)),
    "ends within its last cluster": (UNSAFE, cut(300_001)),
    # other formats
    "empty": (UNSUPPORTED, content(b"")),
    "not whole sectors": (UNSUPPORTED, content(b"hello, world")),
    "a web page": (UNSUPPORTED, content(b"<!DOCTYPE html>".ljust(1024))),
    "a web page in small letters": (UNSUPPORTED, content(b"\r\n  <!doctype html>".ljust(1024))),
    "an error of an object store": (
        UNSUPPORTED,
        content(b'<?xml version="1.0"?><Error>AccessDenied</Error>'.ljust(1024)),
    ),
    "VMDK": (UNSUPPORTED, qemu_img("create", "-q", "-f", "vmdk", "@", "1M")),
    "VMDK for streams": (
        UNSUPPORTED,
        qemu_img("create", "-q", "-f", "vmdk", "-o", "subformat=streamOptimized", "@", "1M"),
    ),
    "VMDK of ESX": (UNSUPPORTED, content(b"COWD\1\0\0\0".ljust(1024, b"\0"))),
    "VMDK descriptor": (UNSUPPORTED, descriptor("# Disk DescriptorFile\nversion=1\n", "FLAT")),
    "VMDK descriptor as QEMU would find it": (UNSUPPORTED, descriptor("\n# a comment\n\nversion=2\n", "FLAT")),
    "VMDK descriptor with a mark before it": (UNSUPPORTED, descriptor("\ufeffversion=3\n", "VMFSSPARSE")),
    "VDI": (UNSUPPORTED, qemu_img("create", "-q", "-f", "vdi", "@", "1M")),
    "VHD": (UNSUPPORTED, qemu_img("create", "-q", "-f", "vpc", "@", "1M")),
    "VHD of a fixed size": (
        UNSUPPORTED,
        qemu_img("create", "-q", "-f", "vpc", "-o", "subformat=fixed,force_size=on", "@", "1M"),
    ),
    "VHDX": (UNSUPPORTED, qemu_img("create", "-q", "-f", "vhdx", "@", "8M")),
    "QED": (UNSUPPORTED, qemu_img("create", "-q", "-f", "qed", "@", "1M")),
    "Parallels": (UNSUPPORTED, qemu_img("create", "-q", "-f", "parallels", "@", "1M")),
    "Parallels of old": (UNSUPPORTED, content(b"WithoutFreeSpace".ljust(1024, b"\0"))),
    "Bochs": (UNSUPPORTED, content(b"Bochs Virtual HD Image".ljust(1024, b"\0"))),
    "cloop": (UNSUPPORTED, content(b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop".ljust(1024, b"\0"))),
    "DMG": (UNSUPPORTED, content(bytes(1024) + b"koly".ljust(512, b"\0"))),
    "LUKS container": (UNSUPPORTED, content(b"LUKS\xba\xbe\0\2".ljust(1024, b"\0"))),
    "gzip": (UNSUPPORTED, content(b"\x1f\x8b\x08".ljust(1024, b"\0"))),
    "xz": (UNSUPPORTED, content(b"\xfd7zXZ\0".ljust(1024, b"\0"))),
    "zstd": (UNSUPPORTED, content(b"\x28\xb5\x2f\xfd".ljust(1024, b"\0"))),
    "bzip2": (UNSUPPORTED, content(b"BZh9".ljust(1024, b"\0"))),
    "zip": (UNSUPPORTED, content(b"PK\x03\x04".ljust(1024, b"\0"))),
    "7z": (UNSUPPORTED, content(b"7z\xbc\xaf\x27\x1c".ljust(1024, b"\0"))),
    "an OVA": (UNSUPPORTED, content(b"vm.ovf".ljust(257, b"\0") + b"ustar\0".ljust(255, b"\0"))),
}
"""Files that must be refused as a disk."""

NO_ISO: dict[str, tuple[str, Make]] = {
    "a disk": (UNSUPPORTED, qemu_img("create", "-q", "-f", "raw", "@", "1M")),
    "a qcow2 that goes on as a CD": (UNSUPPORTED, content(disc(boot=header(backing=b"/etc/shadow")[:512]))),
    "a VMDK descriptor that goes on as a CD": (UNSUPPORTED, content(disc(boot=b"# Disk DescriptorFile\n"))),
    "cut off before its descriptors": (UNSUPPORTED, content(disc()[:32768])),
    "cut off within its descriptors": (UNSUPPORTED, content(disc()[: 32768 + 5])),
    "UDF without a volume": (UNSUPPORTED, content(descriptors(b"BEA01", b"TEA01"))),
    "an empty CD": (UNSUPPORTED, content(b"")),
    "a web page as a CD": (UNSUPPORTED, content(b"<!DOCTYPE html>".ljust(1 << 16))),
}
"""Files that must be refused as an image of type ISO."""

HARMLESS: dict[str, tuple[ImageType, Make]] = {
    "a hole": (ImageType.DISK, sparse(b"", 64 << 20)),
    "one sector": (ImageType.DISK, content(b"x" * 512)),
    "a raw disk with a qcow2 inside": (ImageType.DISK, content(bytes(512) + header(backing=b"/etc/shadow"))),
    "a raw disk with a VMDK descriptor inside": (
        ImageType.DISK,
        content(b"\1" + b"# Disk DescriptorFile\n".ljust(1023)),
    ),
    "a qcow2 that was not closed": (ImageType.DISK, patched(72, struct.pack(">Q", 1), "lazy_refcounts=on")),
    "a CD that begins as a disk with a partition table": (ImageType.ISO, content(disc(boot=bytes(510) + b"\x55\xaa"))),
    "a CD that names files of the host": (ImageType.ISO, content(disc() + b"/etc/shadow".ljust(2048))),
}
"""Files that look bad, and do nothing when they are read as what they are."""
