"""Files that somebody might offer as an image, each with the reason for which it must be refused."""

import io
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pycdlib

MAGIC = b"QFI\xfb"


def header(
    *,
    version: int = 3,
    backing: bytes = b"",
    cluster_bits: int = 16,
    size: int = 1 << 20,
    crypt: int = 0,
    l1_size: int = 1,
    incompatible: int = 0,
    snapshots: int = 0,
    extensions: bytes = b"",
) -> bytes:
    """Return a qcow2 header that says this, padded to two clusters."""
    offset = 104 + len(extensions) + 8 if backing else 0
    fields = (version, offset, len(backing), cluster_bits, size, crypt, l1_size, 3 << 16, 2 << 16, 1, snapshots, 0)
    head = MAGIC + struct.pack(">IQIIQIIQQIIQ", *fields)
    head += struct.pack(">QQQII", incompatible, 0, 0, 4, 104)
    return (head + extensions + bytes(8) + backing).ljust(5 << 16, b"\0")


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data.ljust((len(data) + 7) // 8 * 8, b"\0")


def qemu_img(*words: str) -> Callable[[Path], None]:
    """Return a maker that has qemu-img make the file."""

    def make(path: Path) -> None:
        subprocess.run(["qemu-img", *[word.replace("@", str(path)) for word in words]], check=True, capture_output=True)

    return make


def content(data: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(data)

    return make


def content_of_size(data: bytes, size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(data)
        os.truncate(path, size)

    return make


def truncated(path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "@", "512M")(path)
    with path.open("r+b") as file:
        file.truncate(200_000)


def looped(path: Path) -> None:
    """An image that names itself as its backing file."""
    path.write_bytes(header(backing=str(path).encode()))


def snapshotted(path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "@", "1M")(path)
    qemu_img("snapshot", "-c", "one", "@")(path)


def external_data(path: Path) -> None:
    data = path.with_suffix(".data")
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", "@", "1M")(path)


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


UNSAFE, UNSUPPORTED = "UnsafeImage", "UnsupportedFormat"

CORPUS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "backing file on the host": (
        UNSAFE,
        qemu_img("create", "-qu", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", "@", "1M"),
    ),
    "backing file by json:": (UNSAFE, content(header(backing=b'json:{"driver":"raw","file.filename":"/etc/shadow"}'))),
    "backing file by nbd": (UNSAFE, content(header(backing=b"nbd://10.0.0.1:10809/x"))),
    "backing file by ssh": (UNSAFE, content(header(backing=b"ssh://root@10.0.0.1/etc/shadow"))),
    "backing file by /dev/fd": (UNSAFE, content(header(backing=b"/dev/fd/0"))),
    "backing file is itself": (UNSAFE, looped),
    "backing file in version 2": (UNSAFE, content(header(version=2, backing=b"/etc/passwd"))),
    "backing name out of bounds": (UNSAFE, content(header(backing=b"x" * 4096))),
    "external data file": (UNSAFE, external_data),
    "external data flag alone": (UNSAFE, content(header(incompatible=4))),
    "external data name alone": (UNSAFE, content(header(extensions=extension(0x44415441, b"/etc/shadow")))),
    "2 PB": (UNSAFE, content(header(size=2 << 50))),
    "8 EB": (UNSAFE, content(header(size=(1 << 63) - 512))),
    "size zero": (UNSAFE, content(header(size=0))),
    "huge L1 table": (UNSAFE, content(header(l1_size=0xFFFFFFFF))),
    "L1 table beyond the file": (UNSAFE, content(header(size=64 << 40, l1_size=1 << 17))),
    "tiny clusters": (UNSAFE, content(header(cluster_bits=3))),
    "huge clusters": (UNSAFE, content(header(cluster_bits=63))),
    "unknown feature": (UNSAFE, content(header(incompatible=1 << 40))),
    "marked corrupt": (UNSAFE, content(header(incompatible=2))),
    "AES encryption": (UNSAFE, content(header(crypt=1))),
    "LUKS encryption": (UNSAFE, content(header(crypt=2))),
    "internal snapshots": (UNSAFE, snapshotted),
    "snapshots that are not there": (UNSAFE, content(header(snapshots=70000))),
    "version 9": (UNSAFE, content(header(version=9))),
    "extension out of bounds": (UNSAFE, content(header(extensions=struct.pack(">II", 0x6803F857, 1 << 30)))),
    "header cut off": (UNSAFE, content(MAGIC + b"\0\0\0\3")),
    "truncated": (UNSAFE, truncated),
    "empty": (UNSUPPORTED, content(b"")),
    "not whole sectors": (UNSUPPORTED, content(b"hello, world")),
    "a web page": (UNSUPPORTED, content(b"<!DOCTYPE html>".ljust(1024))),
    "VMDK": (UNSUPPORTED, qemu_img("create", "-q", "-f", "vmdk", "@", "1M")),
    "VMDK descriptor": (
        UNSUPPORTED,
        content(b'# Disk DescriptorFile\nversion=1\nRW 2048 FLAT "/etc/shadow" 0\n'.ljust(1024)),
    ),
    "VDI": (UNSUPPORTED, qemu_img("create", "-q", "-f", "vdi", "@", "1M")),
    "VHD": (UNSUPPORTED, qemu_img("create", "-q", "-f", "vpc", "@", "1M")),
    "VHDX": (UNSUPPORTED, qemu_img("create", "-q", "-f", "vhdx", "@", "8M")),
    "QED": (UNSUPPORTED, qemu_img("create", "-q", "-f", "qed", "@", "1M")),
    "Parallels": (UNSUPPORTED, qemu_img("create", "-q", "-f", "parallels", "@", "1M")),
    "LUKS container": (UNSUPPORTED, content(b"LUKS\xba\xbe\0\2".ljust(1024, b"\0"))),
    "gzip": (UNSUPPORTED, content(b"\x1f\x8b\x08".ljust(1024, b"\0"))),
    "xz": (UNSUPPORTED, content(b"\xfd7zXZ\0".ljust(1024, b"\0"))),
}

NO_ISO: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a disk": (UNSUPPORTED, qemu_img("create", "-q", "-f", "raw", "@", "1M")),
    "a qcow2 that goes on as a CD": (UNSUPPORTED, content(disc(boot=header(backing=b"/etc/shadow")[:512]))),
    "a VMDK descriptor that goes on as a CD": (UNSUPPORTED, content(disc(boot=b"# Disk DescriptorFile\n"))),
    "cut off before its descriptors": (UNSUPPORTED, content(disc()[:32768])),
    "cut off within its descriptors": (UNSUPPORTED, content(disc()[: 32768 + 5])),
    "UDF without a volume": (UNSUPPORTED, content(descriptors(b"BEA01", b"TEA01"))),
    "empty": (UNSUPPORTED, content(b"")),
    "a web page": (UNSUPPORTED, content(b"<!DOCTYPE html>".ljust(1 << 16))),
    "larger than any disc": ("TooLarge", content_of_size(disc(), 200 << 30)),
}
"""Files that must be refused as an image of type ISO."""
