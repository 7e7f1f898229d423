import subprocess
from pathlib import Path

from virtfleet_dev.nested_image import guest_kernel


def test_the_guest_is_what_its_source_says(tmp_path: Path) -> None:
    built, linked = tmp_path / "guest.o", tmp_path / "guest.bin"
    subprocess.run(["as", "--32", "-o", built, guest_kernel().with_suffix(".S")], check=True)
    link = ["ld", "-m", "elf_i386", "-N", "-e", "0x100000", "-Ttext=0x100000", "--oformat", "binary"]
    subprocess.run([*link, "-o", linked, built], check=True)
    assert linked.read_bytes() == guest_kernel().read_bytes()
