"""Web servers that want to know who asks, or that only a private authority vouches for."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from identities import Identities
from image_stores import UID, image, imported, running_store, until
from virtfleet_api.image import Download
from virtfleet_api.vm_image import ImagePhase
from virtfleet_operator.enrolment.certificates import serving_purpose
from virtfleet_operator.enrolment.contexts import build_server_context, load_pair
from web import BadWeb, serve

SECRET = "Bearer hunter2-is-the-token"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(os.urandom(1 << 20))
    return folder


@pytest.fixture
async def private(files: Path) -> AsyncIterator[BadWeb]:
    async with serve(files) as running:
        running.authorization = SECRET
        yield running


def login(url: str, authorization: str | None = SECRET) -> Download:
    return Download(url=url, authenticated=True, authorization=authorization)


async def test_a_server_that_asks_gets_the_credentials_and_nothing_else_does(tmp_path: Path, private: BadWeb) -> None:
    report = await imported(tmp_path, image(None, main=login(f"{private.url}/private/disk.raw")))
    assert report.phase is ImagePhase.READY
    kept = [path for path in (tmp_path / "pool").rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if b"hunter2" in path.read_bytes()]


@pytest.mark.parametrize(
    ("authorization", "said"), [("Bearer wrong", "does not accept what the Secret"), (None, "name a Secret")]
)
async def test_a_refusal_says_what_to_do(tmp_path: Path, private: BadWeb, authorization: str | None, said: str) -> None:
    main = Download(url=f"{private.url}/private/disk.raw", authorization=authorization)
    report = await imported(tmp_path, image(None, main=main))
    assert (report.phase, report.reason) == (ImagePhase.FAILED, "Unauthorized")
    assert said in report.message
    assert "wrong" not in report.message


async def test_credentials_do_not_follow_a_redirect_to_another_server(
    tmp_path: Path, private: BadWeb, files: Path
) -> None:
    async with serve(files) as other:
        private.elsewhere = other.url
        report = await imported(tmp_path, image(None, main=login(f"{private.url}/elsewhere/disk.raw")))
        assert report.phase is ImagePhase.READY
        assert private.shown == [("/elsewhere/disk.raw", SECRET)]
        assert other.shown == [("/files/disk.raw", None)]


async def test_a_daemon_that_lost_the_credentials_waits_for_them(tmp_path: Path, private: BadWeb) -> None:
    wanted = image(None, main=login(f"{private.url}/private/disk.raw"))
    private.interrupt_after = 100_000
    async with running_store(tmp_path) as (images, _):
        await images.put(wanted)
        await until(images, lambda r: r.phase is ImagePhase.FAILED)
    async with running_store(tmp_path) as (images, _):  # another process: the document that is kept has no secrets
        waiting = await until(images, lambda r: "credentials" in r.message)
        assert waiting.phase is ImagePhase.PENDING
        await images.put(wanted)
        await until(images, lambda r: r.phase is ImagePhase.READY)
    ranges = private.asked["/private/disk.raw"]
    assert ranges[0] is None
    assert ranges[-1] is not None, "it went on where the first process stopped"


async def test_a_source_that_has_changed_since_the_first_copy_is_refused(tmp_path: Path, private: BadWeb) -> None:
    first = "ab" * 32
    report = await imported(tmp_path, image(f"{private.url}/files/disk.raw").model_copy(update={"sha256": first}))
    assert (report.phase, report.reason) == (ImagePhase.FAILED, "ChecksumMismatch")
    assert f"that of the copies there are {first}: the source has changed" in report.message


async def test_new_credentials_are_tried_at_once(tmp_path: Path, private: BadWeb) -> None:
    url = f"{private.url}/private/disk.raw"
    async with running_store(tmp_path) as (images, _):
        await images.put(image(None, main=login(url, "Bearer old")))
        await until(images, lambda r: r.phase is ImagePhase.FAILED)
        await images.put(image(None, main=login(url)))
        await until(images, lambda r: r.phase is ImagePhase.READY, seconds=4)


async def test_a_private_authority_is_trusted_instead_of_the_systems(tmp_path: Path, files: Path) -> None:
    fleet, stranger = Identities(), Identities()
    context = build_server_context()
    load_pair(context, fleet.authority.issue(serving_purpose(("127.0.0.1",))))
    async with serve(files, context) as web:
        url = f"{web.url}/files/disk.raw"
        for number, bundle in enumerate((None, stranger.authority.ca_pem, "no certificate")):
            root = tmp_path / str(number)
            root.mkdir()
            report = await imported(root, image(None, main=Download(url=url, ca_bundle=bundle)))
            assert (report.phase, report.reason) == (ImagePhase.FAILED, "TLSError"), bundle
        report = await imported(tmp_path, image(None, main=Download(url=url, ca_bundle=fleet.authority.ca_pem)))
        assert report.phase is ImagePhase.READY
        assert (tmp_path / "pool/images" / UID / "disk").read_bytes() == (files / "disk.raw").read_bytes()


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2:1",
        "http://[::1]:1",
        "http://[::ffff:127.0.0.3]:1",
        "http://169.254.169.254",
        "http://0.0.0.0:1",
        "http://localhost:1",
        "ftp://example.org",
        "http://[",
    ],
)
async def test_a_redirect_does_not_lead_to_the_hypervisor_itself(tmp_path: Path, private: BadWeb, target: str) -> None:
    private.elsewhere = target
    report = await imported(tmp_path, image(f"{private.url}/elsewhere/disk.raw"))
    assert report.phase is ImagePhase.FAILED
    reason = (
        ("Unreachable", "leads to the hypervisor itself") if "localhost" in target else ("HTTPError", "redirects to")
    )
    assert (report.reason, reason[1] in report.message) == (reason[0], True), report.message


async def test_a_name_does_not_lead_to_the_hypervisor_itself(tmp_path: Path, private: BadWeb) -> None:
    url = private.url.replace("127.0.0.1", "localhost")
    report = await imported(tmp_path, image(f"{url}/files/disk.raw"))
    assert (report.reason, "leads to the hypervisor itself" in report.message) == ("Unreachable", True)
    assert private.shown == []
