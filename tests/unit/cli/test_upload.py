"""What an upload does when pieces arrive in part, not at all, or after another file's."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from virtfleet_api.image import PieceQuery, UploadState
from virtfleet_api.vm_image import ImagePhase
from virtfleet_cli import upload
from virtfleet_cli.errors import CliError, UnavailableError
from virtfleet_cli.upload import Upload, prepare_image

CONTENT = bytes(range(256)) * 4096


@dataclass
class MadeUpCluster:
    """A cluster whose node takes an upload as badly as a test wants."""

    there: bytes = b""
    phase: ImagePhase = ImagePhase.PENDING
    reason: str = ""
    image: dict[str, Any] | None = None
    created: list[Any] = field(default_factory=list)
    takes: list[int | Exception] = field(default_factory=list)
    """For each piece in turn: how much of it arrives before the connection breaks, or why it is refused."""
    begun: int = 0

    async def find_image(self, _name: str) -> dict[str, Any] | None:
        return self.image

    async def create_image(self, _name: str, spec: Any) -> None:
        self.created.append(spec)

    async def upload_state(self, _name: str) -> UploadState:
        return UploadState(received_bytes=len(self.there), phase=self.phase, reason=self.reason, message="It is bad.")

    async def send_piece(self, name: str, piece: PieceQuery, data: bytes) -> UploadState:
        if piece.sha256:
            good = hashlib.sha256(self.there).hexdigest() == piece.sha256
            self.phase = ImagePhase.READY if good else ImagePhase.FAILED
            self.reason = "" if good else "ChecksumMismatch"
            return await self.upload_state(name)
        self.begun += piece.offset == 0
        self.there = self.there[: piece.offset]
        arrives = self.takes.pop(0) if self.takes else len(data)
        if isinstance(arrives, Exception):
            raise arrives
        self.there += data[:arrives]
        if arrives < len(data):
            raise UnavailableError("The API server cannot be reached.")
        return await self.upload_state(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(upload, "CHECK_SECONDS", 0.001)
    monkeypatch.setattr(upload, "_FIRST_BYTES", 100_000)


async def sent(cluster: MadeUpCluster, file: Path) -> list[int]:
    shown: list[int] = []
    await Upload(cluster, "base", file, shown.append).run()
    return shown


async def test_a_file_is_sent_in_pieces_and_its_progress_shown(file: Path) -> None:
    cluster = MadeUpCluster()
    shown = await sent(cluster, file)
    assert cluster.there == CONTENT
    assert len(shown) > 2
    assert (shown, shown[-1]) == (sorted(shown), len(CONTENT))


async def test_breaks_cost_only_what_did_not_arrive(file: Path) -> None:
    cluster = MadeUpCluster(takes=[50_000, UnavailableError("away"), 0, 1000])
    await sent(cluster, file)
    assert (cluster.there, cluster.begun) == (CONTENT, 1)


async def test_it_goes_on_where_an_earlier_upload_stopped(file: Path) -> None:
    cluster = MadeUpCluster(there=CONTENT[:300_000])
    await sent(cluster, file)
    assert (cluster.there, cluster.begun) == (CONTENT, 0)


async def test_a_file_that_has_arrived_already_is_only_finished(file: Path) -> None:
    cluster = MadeUpCluster(there=CONTENT)
    assert await sent(cluster, file) == []
    assert (cluster.there, cluster.begun) == (CONTENT, 0)


async def test_an_answer_that_is_lost_at_the_end_is_no_failure(file: Path) -> None:
    class Forgetful(MadeUpCluster):
        lost = False

        async def send_piece(self, name: str, piece: PieceQuery, data: bytes) -> UploadState:
            if self.phase is ImagePhase.READY:
                raise CliError("VMImage base has its content already.")
            state = await super().send_piece(name, piece, data)
            if piece.sha256 and not self.lost:
                self.lost = True
                raise UnavailableError("The API server went away.")
            return state

    await sent(Forgetful(), file)


async def test_a_node_that_takes_nothing_is_given_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(MadeUpCluster):
        async def send_piece(self, name: str, _piece: PieceQuery, _data: bytes) -> UploadState:
            return await self.upload_state(name)

    monkeypatch.setattr(upload, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(UnavailableError, match="which cannot be"):
        await sent(Deaf(), file)


async def test_an_empty_file_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(CliError, match="is empty"):
        await sent(MadeUpCluster(), tmp_path / "empty")


async def test_the_rest_of_another_file_is_replaced(file: Path) -> None:
    for there in (b"x" * 300_000, b"x" * (len(CONTENT) + 1)):
        cluster = MadeUpCluster(there=there)
        await sent(cluster, file)
        assert (cluster.there, cluster.begun) == (CONTENT, 1)


async def test_a_refusal_is_said_at_once(file: Path) -> None:
    with pytest.raises(CliError, match="the pool can take"):
        await sent(MadeUpCluster(takes=[CliError("more than the pool can take")]), file)


async def test_a_cluster_that_stays_away_is_given_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(UnavailableError):
        await sent(MadeUpCluster(takes=[UnavailableError("away")] * 1000), file)


async def test_a_file_that_is_no_image_fails_with_the_nodes_words(file: Path) -> None:
    class Picky(MadeUpCluster):
        async def send_piece(self, name: str, piece: PieceQuery, data: bytes) -> UploadState:
            state = await super().send_piece(name, piece, data)
            if piece.sha256:
                self.phase, self.reason = ImagePhase.FAILED, "UnsafeImage"
            return state

    with pytest.raises(CliError, match=r"The file is refused: It is bad\."):
        await sent(Picky(), file)


async def test_an_image_is_made_unless_it_is_there() -> None:
    cluster = MadeUpCluster()
    assert await prepare_image(cluster, "base", {"type": "ISO"})
    assert cluster.created == [{"source": {"upload": {}}, "type": "ISO"}]
    cluster = MadeUpCluster(image={"spec": {"source": {"upload": {}}, "type": "Disk", "pool": "default"}})
    assert not await prepare_image(cluster, "base", {})
    assert cluster.created == []


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"spec": {"source": {"http": {"url": "http://a"}}}}, "has a source of its own"),
        ({"spec": {"source": {"upload": {}}, "type": "Disk"}}, "has type Disk, not ISO"),
        ({"spec": {"source": {"upload": {}}, "type": "ISO"}, "status": {"phase": "Ready"}}, "has its content already"),
    ],
)
async def test_an_image_that_takes_no_such_file_is_said(image: dict[str, Any], said: str) -> None:
    with pytest.raises(CliError, match=said):
        await prepare_image(MadeUpCluster(image=image), "base", {"type": "ISO"})
