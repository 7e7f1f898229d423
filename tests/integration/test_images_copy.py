"""Nodes that copy an image from each other, over TLS as it is, with peers that lie."""

import asyncio
import hashlib
import os
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from hostile_images import header
from identities import Identities
from image_holder import TOKEN, copy_server, holder
from image_stores import UID, image, running_store, until
from virtfleet_api.image import Download, Image, Peer
from virtfleet_api.vm_image import ImagePhase, ImageType
from virtfleet_node.api import copies
from web import serve

PROOF = 2.0
CONTENT = os.urandom(5 << 20)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def fleet() -> Identities:
    return Identities()


def taken(*peers: Peer, **fields: object) -> Image:
    return image(None, peers=peers, copy_token=TOKEN, **fields)


async def test_a_node_copies_an_image_from_another(tmp_path: Path, fleet: Identities) -> None:
    async with (
        holder(tmp_path / "a", fleet, CONTENT) as peer,
        running_store(tmp_path, lambda: fleet.client(None)) as (images, _),
    ):
        await images.put(taken(peer))
        report = await until(images, lambda r: r.phase is ImagePhase.READY)
        assert report.sha256 == DIGEST
        assert images.files(UID).path.read_bytes() == CONTENT
    assert TOKEN not in (tmp_path / "pool/images" / UID / "image.json").read_text()


async def test_peers_come_before_the_source_and_the_source_after_them(tmp_path: Path, fleet: Identities) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(CONTENT)
    async with serve(folder) as web, holder(tmp_path / "a", fleet, CONTENT) as peer:
        main = Download(url=f"{web.url}/files/disk.raw")
        async with running_store(tmp_path / "b", lambda: fleet.client(None)) as (images, _):
            await images.put(taken(peer, main=main))
            await until(images, lambda r: r.phase is ImagePhase.READY)
        assert web.shown == []
        gone = peer.model_copy(update={"address": "127.0.0.1:1"})
        async with running_store(tmp_path / "c", lambda: fleet.client(None)) as (images, _):
            await images.put(taken(gone, main=main))
            await until(images, lambda r: r.phase is ImagePhase.READY)
        assert len(web.shown) == 1


async def test_holes_stay_holes_on_the_way(tmp_path: Path, fleet: Identities) -> None:
    """From the source, by an upload, and from node to node: zeros take no space."""
    content = b"x" * 4096 + bytes(32 << 20) + b"y" * 4096 + bytes(8 << 20)
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(content)
    async with serve(folder) as web, running_store(tmp_path / "c") as (images, _):
        await images.put(image(f"{web.url}/files/disk.raw"))
        fetched = await until(images, lambda r: r.phase is ImagePhase.READY)
        assert images.files(UID).path.read_bytes() == content
    async with (
        holder(tmp_path / "a", fleet, content) as peer,
        running_store(tmp_path / "b", lambda: fleet.client(None)) as (images, _),
    ):
        await images.put(taken(peer))
        copied = await until(images, lambda r: r.phase is ImagePhase.READY)
        sent = (tmp_path / "a/pool/images" / UID / "disk").stat()
        assert images.files(UID).path.read_bytes() == content
    assert max(fetched.actual_size_bytes or 0, copied.actual_size_bytes or 0, sent.st_blocks * 512) < 4 << 20


async def test_a_kernel_is_copied_with_its_initrd(tmp_path: Path, fleet: Identities) -> None:
    files = {"vmlinuz": bytes(514) + b"HdrS" + os.urandom(100_000), "initrd": os.urandom(200_000)}
    folder = tmp_path / "web"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)

    def kernel(url: str, **fields: object) -> Image:
        initrd = Download(url=f"{url}/files/initrd")
        return image(f"{url}/files/vmlinuz", type=ImageType.KERNEL, initrd=initrd, copy_token=TOKEN, **fields)

    async with serve(folder) as web, running_store(tmp_path / "a") as (holding, _):
        await holding.put(kernel(web.url))
        report = await until(holding, lambda r: r.phase is ImagePhase.READY)
        asked = len(web.shown)
        async with (
            copy_server(holding, fleet, "node-a") as port,
            running_store(tmp_path / "b", lambda: fleet.client(None)) as (images, _),
        ):
            peer = Peer(
                node="node-a",
                address=f"127.0.0.1:{port}",
                sha256=report.sha256,
                size_bytes=report.file_size_bytes,
                initrd_sha256=report.initrd_sha256,
            )
            await images.put(kernel(web.url, peers=(peer,)))
            await until(images, lambda r: r.phase is ImagePhase.READY)
            found = images.files(UID)
            assert [found.path.read_bytes(), found.initrd.read_bytes()] == list(files.values())
        assert len(web.shown) == asked, "the source was not asked again"


async def test_a_peer_that_lies_is_found_out(tmp_path: Path, fleet: Identities) -> None:
    """It says one digest and gives another file, or is not the node it claims to be."""
    other = CONTENT[:-512] + os.urandom(512)
    async with (
        holder(tmp_path / "a", fleet, other) as liar,
        holder(tmp_path / "b", fleet, CONTENT, "node-b") as good,
        running_store(tmp_path, lambda: fleet.client(None)) as (images, _),
    ):
        lies = [
            liar.model_copy(update={"sha256": DIGEST}),
            liar.model_copy(update={"node": "node-b", "sha256": DIGEST}),
            good.model_copy(update={"size_bytes": 100}),
        ]
        for lie in lies:
            await images.put(taken(lie))
            failed = await until(images, lambda r: r.phase is ImagePhase.FAILED)
            assert (failed.reason, lie.node in failed.message) == ("CopyFailed", True)
            await images.put(taken(lie).model_copy(update={"present": False}))
        await images.put(taken(liar).model_copy(update={"sha256": DIGEST}))
        failed = await until(images, lambda r: r.phase is ImagePhase.FAILED)
        assert failed.reason == "CopyFailed", "what it has is not what the fleet has"
        await images.put(taken(*lies, good).model_copy(update={"sha256": DIGEST}))
        await until(images, lambda r: r.phase is ImagePhase.READY)
        assert images.files(UID).path.read_bytes() == CONTENT


async def test_a_copy_is_probed_like_any_other_file(tmp_path: Path, fleet: Identities) -> None:
    async with (
        holder(tmp_path / "a", fleet, CONTENT) as peer,
        running_store(tmp_path, lambda: fleet.client(None)) as (images, _),
    ):
        bad = header(backing=b"/etc/shadow")
        (tmp_path / "a/pool/images" / UID / "disk").write_bytes(bad)
        await images.put(taken(peer.model_copy(update={"sha256": hashlib.sha256(bad).hexdigest()})))
        failed = await until(images, lambda r: r.phase is ImagePhase.FAILED)
        assert failed.reason == "UnsafeImage"


async def test_a_copy_goes_on_at_another_peer(tmp_path: Path, fleet: Identities) -> None:
    async with (
        holder(tmp_path / "a", fleet, CONTENT) as first,
        holder(tmp_path / "b", fleet, CONTENT, "node-b") as second,
    ):
        there = tmp_path / "pool/images" / UID / "disk.partial"
        async with running_store(tmp_path, lambda: fleet.client(None)) as (images, _):
            await images.put(taken(first))
            await until(images, lambda r: r.phase is not ImagePhase.PENDING)
        there.write_bytes(CONTENT[: 3 << 20])
        sidecar = f'{{"url": "/v1/images/{UID}/content", "validator": "\\"{DIGEST}\\""}}'
        there.with_name("disk.partial.json").write_text(sidecar)
        (there.parent / "ready.json").unlink(missing_ok=True)
        (tmp_path / "b/pool/images" / UID / "disk").write_bytes(bytes(3 << 20) + CONTENT[3 << 20 :])
        async with running_store(tmp_path, lambda: fleet.client(None)) as (images, _):
            await images.put(taken(second))
            await until(images, lambda r: r.phase is ImagePhase.READY)
            assert images.files(UID).path.read_bytes() == CONTENT, "only the rest came from the second node"


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        (f"/v1/images/{UID}/content", "u" * 64, 403),
        (f"/v1/images/{UID}/content", "", 403),
        (f"/v1/images/{UID}/initrd", TOKEN, 403),
        ("/v1/images/22222222-2222-3333-4444-555555555555/content", TOKEN, 403),
        (f"/v1/images/{UID}", TOKEN, 404),
        ("/v1/images/..%2f..%2fetc/content", TOKEN, 404),
        ("/v1/node", TOKEN, 404),
    ],
)
async def test_only_the_image_of_the_token_is_given(
    tmp_path: Path, fleet: Identities, path: str, token: str, status: int
) -> None:
    async with holder(tmp_path / "a", fleet, CONTENT) as peer, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {token}"}
        request = session.get(
            f"https://{peer.address}{path}", headers=headers, ssl=fleet.client(None), server_hostname="node-a"
        )
        async with request as response:
            assert response.status == status
            assert DIGEST not in response.headers.get("ETag", "")


async def test_a_node_gives_nothing_before_the_operator_has_told_it_the_token(
    tmp_path: Path, fleet: Identities
) -> None:
    async with holder(tmp_path / "a", fleet, CONTENT):
        pass
    async with running_store(tmp_path / "a") as (images, _), copy_server(images, fleet, "node-a") as port:
        url = f"https://127.0.0.1:{port}/v1/images/{UID}/content"
        for token, status in ((TOKEN, 403), ("None", 403), ("", 403)):
            async with (
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
                session.get(url, ssl=fleet.client(None), server_hostname="node-a") as response,
            ):
                assert response.status == status


async def test_who_shows_no_token_is_cut_off(
    tmp_path: Path, fleet: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PROOF_SECONDS", PROOF)
    monkeypatch.setattr(copies, "MOST_CONNECTIONS", 2)
    async with holder(tmp_path / "a", fleet, CONTENT) as peer:
        host, _, port = peer.address.rpartition(":")
        connect = partial(asyncio.open_connection, host, int(port), ssl=fleet.client(None), server_hostname="node-a")
        started = asyncio.get_running_loop().time()
        silent = [await connect() for _ in range(3)]
        await silent[2][0].read()
        assert asyncio.get_running_loop().time() - started < PROOF, "more than two are not even listened to"
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
