"""kill -9 at random moments of whatever is done with images and disks: the next process converges and leaks nothing."""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from identities import Identities
from image_holder import TOKEN, holder
from image_stores import image
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.images import ImageStore
from virtfleet_node.storage.pools import Pools
from web import serve

ROUNDS = 20
IMAGE, MACHINE = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "ab")
SUPPORT = Path(__file__).parents[1] / "support"
VICTIM, IMAGE_VICTIM = SUPPORT / "storage_victim.py", SUPPORT / "image_victim.py"


async def test_a_killed_storage_converges_and_leaks_nothing(tmp_path: Path) -> None:
    folder, pool = tmp_path / "web", tmp_path / "pool"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(os.urandom(8 << 20))
    async with serve(folder) as web:
        await kill_often([sys.executable, VICTIM, pool, f"{web.url}/files/disk.raw", IMAGE, MACHINE])
    assert [path for path in pool.rglob("*") if path.is_file()] == [], "a file that nobody owns"


async def test_a_killed_upload_goes_on_and_leaks_nothing(tmp_path: Path) -> None:
    content, pool = tmp_path / "disk.raw", tmp_path / "pool"
    content.write_bytes(os.urandom(8 << 20))
    await kill_often([sys.executable, IMAGE_VICTIM, pool, "upload", content], rounds=10)
    assert [path for path in pool.rglob("*") if path.is_file()] == [], "a file that nobody owns"


async def test_a_killed_copy_goes_on_and_leaks_nothing(tmp_path: Path) -> None:
    fleet, pool = Identities(), tmp_path / "pool"
    (tmp_path / "ca.pem").write_text(fleet.authority.ca_pem)
    async with holder(tmp_path / "a", fleet, os.urandom(8 << 20)) as peer:
        document = image(None, peers=(peer,), copy_token=TOKEN)
        (tmp_path / "image.json").write_text(document.model_dump_json())
        command = [sys.executable, IMAGE_VICTIM, pool, "copy", tmp_path / "image.json", tmp_path / "ca.pem"]
        await kill_often(command, rounds=10)
    assert [path for path in pool.rglob("*") if path.is_file()] == [], "a file that nobody owns"


async def kill_often(command: list[str | Path], rounds: int = ROUNDS) -> None:
    """Kill a victim at random moments, then let one process take up what is left and do one round, which ends clean."""
    chance = random.Random()
    for _ in range(rounds):
        await asyncio.to_thread(run_and_kill, command, chance.uniform(0, 0.4))
    await asyncio.to_thread(subprocess.run, [*command, "1"], check=True, stdout=subprocess.DEVNULL, timeout=60)


def run_and_kill(command: list[str | Path], seconds: float) -> None:
    """Start the victim and kill it some time after it has begun its work."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"started\n"
        time.sleep(seconds)  # the random moment is the test
        os.killpg(victim.pid, 9)


async def test_killed_changes_of_pools_converge_and_leak_nothing(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, VICTIM.with_name("pools_victim.py"), tmp_path, MACHINE]
    chance = random.Random()
    for _ in range(ROUNDS // 2):
        await asyncio.to_thread(run_and_kill, command, chance.uniform(0, 0.2))
    await asyncio.to_thread(subprocess.run, [*command, "1"], check=True, stdout=subprocess.DEVNULL)
    assert [path.name for path in (tmp_path / "pools").iterdir()] == ["default"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["pools.json"]


async def test_what_a_crash_left_without_a_document_is_swept(tmp_path: Path) -> None:
    pools = Pools({"default": tmp_path})
    pools.prepare()
    leftover = tmp_path / "images" / IMAGE
    leftover.mkdir()
    (leftover / "image.json.partial").write_text("{")
    images = ImageStore(pools, DiskStore(pools))
    await images.start()
    assert images.reports() == ()
    assert not leftover.exists()
