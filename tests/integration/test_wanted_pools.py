"""Pools that an operator asks for, on real file systems: live, across restarts; no file is lost, no link followed."""

import asyncio
import os
from pathlib import Path

import pytest

from small_file_system import mounted
from virtfleet_api.image import Download, Image
from virtfleet_api.machine import BlankSource, ImageDiskSource, MachineDisk
from virtfleet_api.pool import Pool, PoolSet, PoolType
from virtfleet_api.report import PoolReport
from virtfleet_api.virtual_machine import Clone
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.core.errors import InvalidError, PoolFullError, UnavailableError
from virtfleet_node.core.stored import ImageFiles
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.images import ImageStore
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.probe import probe_disk
from virtfleet_node.storage.qemu_img import copy_image
from virtfleet_node.storage.wanted_pools import WantedPools

MACHINE, OTHER, IMAGE = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "abc")
MIB = 1 << 20


class Host:
    """A node's storage, which can be started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.roots = root / "pools"
        self.start()

    def start(self) -> None:
        self.pools = Pools({"default": self.roots / "default"})
        self.pools.prepare()
        self.wanted = WantedPools(self.pools, self.root / "pools.json", (self.roots,))
        self.wanted.start()
        self.disks = DiskStore(self.pools)

    def want(self, *pools: Pool) -> frozenset[str]:
        return self.wanted.put(PoolSet(items=pools))

    def pool(self, name: str, path: str = "", **more: object) -> Pool:
        return Pool.model_validate({"name": name, "path": path or str(self.roots / name), **more})

    def report(self, name: str) -> PoolReport:
        return next(report for report in self.pools.reports() if report.name == name)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    # A path of pytest's own may hold what the pattern of paths does not allow.
    return Host(tmp_path)


def disk(pool: str, mebibytes: int = 10) -> MachineDisk:
    return MachineDisk(name="root", pool=pool, source=BlankSource(), size_bytes=mebibytes * MIB)


async def test_a_pool_comes_is_used_and_outlives_the_daemon(host: Host) -> None:
    assert host.want(host.pool("fast")) == {"fast"}
    assert host.want(host.pool("fast")) == frozenset()
    stored = await host.disks.prepare_disk(MACHINE, disk("fast"), None)
    host.start()
    assert host.disks.read_disks(MACHINE) == (stored,)
    assert host.report("fast").committed_bytes == 10 * MIB
    assert host.report("fast").capacity_bytes > 0


async def test_a_pool_that_holds_something_stays_until_it_is_empty(host: Host) -> None:
    host.want(host.pool("fast"))
    await host.disks.prepare_disk(MACHINE, disk("fast"), None)
    host.want()
    host.start()
    said = host.report("fast")
    assert said.leaving
    assert said.problem == "It is not wanted any more and goes once it is empty; it holds disks of 1 machine."
    with pytest.raises(PoolFullError, match="is being removed"):
        await host.disks.prepare_disk(OTHER, disk("fast"), None)
    host.disks.remove_disk(MACHINE, "fast", "root")
    host.wanted.tidy()
    assert host.pools.names() == ("default",)
    assert not (host.roots / "fast").exists()
    assert host.pools.reports()[-1].problem == ""


async def test_a_pool_that_holds_something_does_not_move(host: Host) -> None:
    host.want(host.pool("fast"))
    await host.disks.prepare_disk(MACHINE, disk("fast"), None)
    host.want(host.pool("fast", str(host.roots / "other"), watermark="50%"))
    assert host.pools.paths()["fast"] == host.roots / "fast"
    assert host.report("fast").problem.startswith(f"It stays in {host.roots}/fast, since it holds disks of 1 machine")
    assert host.report("fast").watermark == "50%"
    await host.disks.prepare_disk(MACHINE, disk("fast").model_copy(update={"name": "data"}), None)


def test_the_configuration_file_wins(host: Host) -> None:
    host.want(host.pool("default", str(host.roots / "elsewhere")))
    assert host.pools.paths() == {"default": host.roots / "default"}
    assert host.report("default").problem.startswith("The node's configuration file defines this pool")
    assert host.report("default").capacity_bytes > 0


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/etc/fast", "not below the poolRoots"),
        ("{roots}", "not below the poolRoots"),
        ("{roots}/default/disks", "that of pool default overlap"),
        ("{roots}/link", "neither a folder nor a file"),
        ("{roots}/link/fast", "neither a folder nor a file"),
        ("{roots}/file", "cannot be made or used"),
    ],
)
def test_a_pool_elsewhere_is_refused(host: Host, path: str, said: str) -> None:
    (host.root / "outside").mkdir()
    (host.roots / "link").symlink_to(host.root / "outside")
    (host.roots / "file").touch()
    host.want(host.pool("fast", path.format(roots=host.roots)))
    assert host.pools.names() == ("default",)
    assert said in host.report("fast").problem
    assert list((host.root / "outside").iterdir()) == []


async def test_a_shared_pool_needs_its_directory(host: Host) -> None:
    shared = host.pool("nfs", type=PoolType.SHARED)
    host.want(shared)
    assert "mount its file system" in host.report("nfs").problem
    (host.roots / "nfs").mkdir()
    host.wanted.tidy()
    assert host.report("nfs").problem == ""
    assert host.report("nfs").type is PoolType.SHARED
    await host.disks.prepare_disk(MACHINE, disk("nfs"), None)


async def test_a_pool_that_is_not_mounted_is_left_alone_until_it_is_back(host: Host) -> None:
    host.want(host.pool("fast"))
    stored = await host.disks.prepare_disk(MACHINE, disk("fast"), None)
    (host.roots / "fast").rename(host.root / "away")
    (host.roots / "fast").mkdir()
    host.start()
    host.want()
    assert "is its file system mounted?" in host.report("fast").problem
    with pytest.raises(UnavailableError, match="mounted"):
        host.pools.check_open("fast")
    assert list((host.roots / "fast").iterdir()) == [], "nothing is made on the file system below"
    (host.roots / "fast").rmdir()
    (host.root / "away").rename(host.roots / "fast")
    host.want(host.pool("fast"))
    assert host.disks.read_disks(MACHINE) == (stored,)


async def test_disks_are_promised_up_to_the_overcommit(host: Host) -> None:
    with mounted(host.roots / "small", 64):
        host.want(host.pool("small", overcommit="2"))
        limit = host.report("small").limit_bytes or 0
        assert limit == 2 * host.report("small").capacity_bytes
        await host.disks.prepare_disk(MACHINE, disk("small", limit // MIB), None)
        with pytest.raises(PoolFullError, match="use another pool, or raise its overcommit"):
            await host.disks.prepare_disk(OTHER, disk("small"), None)
        host.want(host.pool("small", overcommit="3"))
        await host.disks.prepare_disk(OTHER, disk("small"), None)
        assert host.report("small").committed_bytes == (limit // MIB + 10) * MIB
        assert host.report("small").reflink is False
        host.pools.drop("small")


async def test_disks_that_are_made_at_once_share_what_is_left(host: Host) -> None:
    with mounted(host.roots / "small", 64):
        host.want(host.pool("small", overcommit="1"))
        size = (host.report("small").limit_bytes or 0) // 5
        wanted = disk("small").model_copy(update={"size_bytes": size})
        uids = [f"{number:08}-2222-3333-4444-555555555555" for number in range(9)]
        made = await asyncio.gather(
            *(host.disks.prepare_disk(uid, wanted, None) for uid in uids), return_exceptions=True
        )
        assert [isinstance(one, PoolFullError) for one in made].count(False) == 5
        assert host.disks.owners() == set(uids[:5])
        host.pools.drop("small")


async def test_a_pool_above_its_watermark_takes_nothing_and_again_when_it_is_clearly_below(host: Host) -> None:
    with mounted(host.roots / "small", 64) as path:
        host.want(host.pool("small", watermark="50%"))
        await host.disks.prepare_disk(MACHINE, disk("small"), None)
        (path / "ballast").write_bytes(os.urandom(34 * MIB))
        host.wanted.tidy()
        assert host.report("small").nearly_full
        with pytest.raises(PoolFullError, match=r"nearly full \(more than 50% are used\)"):
            await host.disks.prepare_disk(OTHER, disk("small"), None)
        await host.disks.grow_disk(MACHINE, disk("small", 20))
        os.truncate(path / "ballast", 27 * MIB)
        host.wanted.tidy()
        assert host.report("small").nearly_full, "it does not flap"
        os.truncate(path / "ballast", 20 * MIB)
        await host.disks.prepare_disk(OTHER, disk("small"), None)
        host.pools.drop("small")


async def test_an_image_is_not_fetched_into_a_pool_that_is_nearly_full(host: Host) -> None:
    with mounted(host.roots / "small", 64) as path:
        host.want(host.pool("small", watermark="1%"))
        (path / "ballast").write_bytes(os.urandom(MIB))
        images = ImageStore(host.pools, host.disks)
        await images.start()
        nowhere = Download(url="http://127.0.0.1:1/disk.qcow2")
        await images.put(Image(uid=IMAGE, namespace="n", name="i", pool="small", main=nowhere))
        async with asyncio.timeout(10):
            while images.reports()[0].phase is not ImagePhase.FAILED:
                await asyncio.sleep(0.02)
        (report,) = images.reports()
        assert report.reason == "PoolFull"
        assert report.message.startswith("Pool small is nearly full (more than 1% are used)")
        await images.stop()
        host.pools.drop("small")


async def read(path: Path, size: int) -> bytes:
    """Return the beginning of what a guest would read."""
    command = ("qemu-img", "dd", "-f", "qcow2", "-O", "raw", "bs=1M", f"count={size // MIB}", f"if={path}")
    out = path.with_suffix(".raw")
    process = await asyncio.create_subprocess_exec(*command, f"of={out}")
    assert await process.wait() == 0
    content = out.read_bytes()
    out.unlink()
    return content


async def test_a_full_copy_shares_its_data_where_the_file_system_can(host: Host, tmp_path: Path) -> None:
    raw = tmp_path / "base.raw"
    raw.write_bytes(os.urandom(32 * MIB))
    with mounted(host.roots / "xfs", 320, "xfs") as path:
        host.want(host.pool("xfs"))
        assert host.report("xfs").reflink
        base = path / "images" / IMAGE / "disk"
        base.parent.mkdir()
        await copy_image(raw, "raw", base, 1 << 30)
        files = ImageFiles(base, *await probe_disk(base))
        before = host.pools.free_bytes("xfs")
        source = ImageDiskSource(image_uid=IMAGE, clone=Clone.FULL)
        wanted = disk("xfs", 48).model_copy(update={"source": source})
        stored = await host.disks.prepare_disk(MACHINE, wanted, files)
        assert before - host.pools.free_bytes("xfs") < 2 * MIB
        assert (stored.capacity_bytes, stored.backing_image_uid) == (48 * MIB, None)
        base.unlink()
        assert await read(stored.path, 32 * MIB) == raw.read_bytes()
        host.pools.drop("xfs")


async def test_an_unknown_pool_is_told_with_those_that_came(host: Host) -> None:
    host.want(host.pool("fast"))
    with pytest.raises(InvalidError, match="it has: default, fast"):
        await host.disks.prepare_disk(MACHINE, disk("slow"), None)
