"""Uploads at a node's own server: bounded, guarded by the epoch, and nothing of a broken piece is lost."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

from identities import NODE, Identities
from image_stores import UID, image, running_store, until
from polling import until as eventually
from virtfleet_api.vm_image import ImagePhase
from virtfleet_node.api import uploads
from virtfleet_node.api.epoch import EpochGuard
from virtfleet_node.api.server import Server
from virtfleet_node.storage.images import ImageStore

if TYPE_CHECKING:
    from conftest import Peer, RunningNode

PATH = f"/v1/images/{UID}/upload"
CONTENT = os.urandom(1 << 20)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
async def images(node: "RunningNode", tmp_path: Path) -> AsyncIterator[ImageStore]:
    """The node's images, one of which waits for an upload."""
    async with running_store(tmp_path) as (store, _):
        await store.put(image(None))
        await node.server.stop()
        metrics = node.server._metrics
        node.server = Server(node.daemon, node.journal, EpochGuard(node.epoch_path), metrics, store)
        node.port = await node.server.start("127.0.0.1", node.port, node.context)
        yield store


async def test_a_file_arrives_in_pieces(images: ImageStore, operator: "Peer") -> None:
    half = len(CONTENT) // 2
    status, state = await operator.ask("GET", PATH)
    assert (status, state["receivedBytes"], state["phase"]) == (200, 0, "Pending")
    status, state = await operator.ask("PUT", f"{PATH}?offset=0&size={len(CONTENT)}", CONTENT[:half])
    assert (status, state["receivedBytes"], state["phase"]) == (200, half, "Importing")
    status, state = await operator.ask("PUT", f"{PATH}?offset={half}&size={len(CONTENT)}", CONTENT[half:])
    assert (status, state["receivedBytes"]) == (200, len(CONTENT))
    status, _ = await operator.ask("PUT", f"{PATH}?offset={len(CONTENT)}&sha256={DIGEST}")
    assert status == 200
    await until(images, lambda r: r.phase is ImagePhase.READY)
    status, problem = await operator.ask("PUT", f"{PATH}?offset=0", CONTENT)
    assert (status, problem["reason"]) == (409, "Conflict")


@pytest.mark.parametrize(
    ("query", "epoch", "status", "reason"),
    [
        ("", "5", 400, "Invalid"),
        ("?offset=-1", "5", 400, "Invalid"),
        ("?offset=x", "5", 400, "Invalid"),
        ("?offset=0&sha256=abc", "5", 400, "Invalid"),
        ("?offset=99999999999999999999", "5", 400, "Invalid"),
        ("?offset=7", "5", 409, "Conflict"),
        ("?offset=0&size=1152921504606846976", "5", 400, "Invalid"),
        ("?offset=0", None, 400, "Invalid"),
        ("?offset=0", "4", 409, "StaleEpoch"),
    ],
)
async def test_what_does_not_fit_is_refused_and_writes_nothing(
    images: ImageStore, operator: "Peer", query: str, epoch: str | None, status: int, reason: str
) -> None:
    await operator.ask("PUT", "/v1/machines/x", b"{}", epoch="5")
    await operator.ask("DELETE", f"/v1/machines/{UID}", epoch="5")
    found, problem = await operator.ask("PUT", PATH + query, b"x" * 100, epoch=epoch)
    assert (found, problem["reason"]) == (status, reason)
    assert images.upload_state(UID).received_bytes == 0


@pytest.mark.usefixtures("images")
async def test_a_piece_has_a_greatest_size(operator: "Peer", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_PIECE_BYTES", 1000)
    status, problem = await operator.ask("PUT", f"{PATH}?offset=0", b"x" * 1001)
    assert (status, problem["message"]) == (400, "A piece has at most 1000 bytes.")
    status, problem = await operator.ask("PUT", "/v1/images/22222222-2222-3333-4444-555555555555/upload?offset=0")
    assert (status, problem["reason"]) == (404, "NotFound")


async def test_what_arrived_of_a_broken_piece_is_kept(
    images: ImageStore, node: "RunningNode", fleet: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "STALL_SECONDS", 0.5)

    async def half(then: asyncio.Event) -> AsyncIterator[bytes]:
        yield CONTENT[:100_000]
        await then.wait()
        raise OSError("the sender dies")

    for number, stalls in enumerate((True, False)):
        then = asyncio.Event()
        async with node.session(fleet.client(fleet.operator())) as session:
            query = {"offset": str(number * 100_000)}
            sending = asyncio.create_task(
                session.put(PATH, params=query, data=half(then), headers={"Virtfleet-Epoch": "1"}, server_hostname=NODE)
            )
            if not stalls:
                await asyncio.sleep(0.1)
                then.set()
            await eventually(lambda end=(number + 1) * 100_000: images.upload_state(UID).received_bytes == end)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    assert images.reports()[0].phase is ImagePhase.IMPORTING


async def test_without_a_certificate_nothing_is_taken(
    images: ImageStore, node: "RunningNode", fleet: Identities
) -> None:
    async with node.session(fleet.client(None)) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.put(f"{PATH}?offset=0", data=b"x", server_hostname=NODE)
    assert images.upload_state(UID).received_bytes == 0
