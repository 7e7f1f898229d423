"""From images to documents."""

from collections.abc import Callable

from virtfleet_api.image import ImageFormat, ImageReport
from virtfleet_api.quantity import Bytes
from virtfleet_api.vm_image import ImagePhase, NodeImageStatus, VMImage, VMImageStatus
from virtfleet_operator.core.images import (
    Holder,
    Supply,
    choose_peers,
    compile_image,
    copy_token,
    pinned_checksum,
    remembered_copies,
)

MakeImage = Callable[..., VMImage]
DIGEST = "ab" * 32


def test_the_document_of_an_image(image: MakeImage) -> None:
    digest = "ab" * 32
    http = {"url": "https://images.example.org/vmlinuz", "checksum": f"sha256:{digest}"}
    made = image(
        source={"http": http, "initrd": {"url": "https://images.example.org/initrd"}}, type="Kernel", pool="fast"
    )
    document = compile_image(made)
    assert (document.type, document.pool, document.present) == ("Kernel", "fast", True)
    assert document.main is not None
    assert (document.main.url, document.main.sha256) == (http["url"], digest)
    assert document.initrd is not None
    assert document.initrd.sha256 is None
    assert not compile_image(made, present=False).present


def test_the_document_for_one_node(image: MakeImage) -> None:
    http = {"url": "https://images.example.org/a", "secretRef": {"name": "login"}, "caBundle": "PEM"}
    supply = Supply(authorization="Bearer x", copy_token="t", sha256=DIGEST)
    document = compile_image(image(source={"http": http}), supply)
    assert document.main is not None
    assert (document.main.authenticated, document.main.authorization, document.main.ca_bundle) == (
        True,
        "Bearer x",
        "PEM",
    )
    assert (document.copy_token, document.sha256) == ("t", DIGEST)
    kept = document.without_secrets().model_dump_json()
    assert "Bearer" not in kept
    assert '"copy_token":null' in kept.replace("copyToken", "copy_token")
    assert "Bearer x" not in repr(document)
    assert compile_image(image(source={"upload": {}})).main is None


def report(image: VMImage, sha256: str = DIGEST, phase: ImagePhase = ImagePhase.READY) -> ImageReport:
    meta = image.metadata
    return ImageReport(uid=meta.uid, namespace="shop", name=meta.name, phase=phase, sha256=sha256, file_size_bytes=5)


def test_a_node_copies_from_those_that_have_what_was_found_first(image: MakeImage) -> None:
    made = image(status={"checksum": f"sha256:{DIGEST}"})
    holders = [Holder(f"n{n}", f"10.0.0.{n}:8445", report(made)) for n in range(9)]
    liar = Holder("liar", "10.0.0.66:8445", report(made, "cd" * 32))
    busy = Holder("busy", "10.0.0.67:8445", report(made, phase=ImagePhase.IMPORTING))
    peers = choose_peers(made, "n0", [*holders, liar, busy])
    assert len(peers) == 3
    assert not {"n0", "liar", "busy"} & {peer.node for peer in peers}
    assert peers == choose_peers(made, "n0", [busy, liar, *reversed(holders)])
    asked = {peer.node for n in range(9) for peer in choose_peers(made, f"n{n}", holders)}
    assert len(asked) > 5
    named = image(source={"http": {"url": "https://example.org/a", "checksum": f"sha256:{'cd' * 32}"}})
    assert [peer.node for peer in choose_peers(named, "n0", [*holders, liar])] == ["liar"]


def test_a_token_is_of_one_image_and_one_key() -> None:
    assert copy_token(b"k", "a") == copy_token(b"k", "a")
    assert len({copy_token(b"k", "a"), copy_token(b"k", "b"), copy_token(b"l", "a")}) == 3


def test_the_checksum_of_the_first_copy_stays(image: MakeImage) -> None:
    made = image()
    first, other = f"sha256:{DIGEST}", f"sha256:{'cd' * 32}"
    assert pinned_checksum(None, {"b": report(made), "a": report(made, phase=ImagePhase.FAILED)}) == first
    assert pinned_checksum(first, {"a": report(made, "cd" * 32), "b": report(made)}) == first
    assert pinned_checksum(first, {"a": report(made, "cd" * 32)}) == other
    assert pinned_checksum(first, {}) is None


def test_ready_copies_of_silent_nodes_are_remembered_with_what_was_found(image: MakeImage) -> None:
    copies = tuple(
        NodeImageStatus(name=name, phase=phase)
        for name, phase in (("a", ImagePhase.READY), ("b", ImagePhase.READY), ("c", ImagePhase.IMPORTING))
    )
    status = VMImageStatus(nodes=copies, format="qcow2", virtual_size=Bytes(2**30), actual_size=Bytes(2**20))
    (found,) = remembered_copies(image().metadata, status, {"a", "c", "d"}).items()
    assert found[0] == "a"
    assert (found[1].phase, found[1].format) == (ImagePhase.READY, ImageFormat.QCOW2)
    assert (found[1].virtual_size_bytes, found[1].actual_size_bytes) == (2**30, 2**20)
    later = status.model_copy(update={"format": "of a later version"})
    assert remembered_copies(image().metadata, later, {"a"})["a"].format is None
