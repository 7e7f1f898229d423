"""From images to documents, and which nodes hold them."""

from collections.abc import Callable

from virtfleet_api.image import ImageFormat
from virtfleet_api.quantity import Bytes
from virtfleet_api.vm_image import ImagePhase, NodeImageStatus, VMImage, VMImageStatus
from virtfleet_operator.core.images import compile_image, image_homes, remembered_copies
from virtfleet_operator.core.place import Candidate, PoolRoom

MakeImage = Callable[..., VMImage]


def test_the_document_of_an_image(image: MakeImage) -> None:
    digest = "ab" * 32
    http = {"url": "https://images.example.org/vmlinuz", "checksum": f"sha256:{digest}"}
    made = image(
        source={"http": http, "initrd": {"url": "https://images.example.org/initrd"}}, type="Kernel", pool="fast"
    )
    document = compile_image(made)
    assert (document.type, document.pool, document.present) == ("Kernel", "fast", True)
    assert (document.main.url, document.main.sha256) == (http["url"], digest)
    assert document.initrd is not None
    assert document.initrd.sha256 is None
    assert not compile_image(made, present=False).present


def test_an_image_is_held_where_it_is_used_and_where_it_is_already(image: MakeImage) -> None:
    nodes = [Candidate(name, pools={"default": PoolRoom()}) for name in ("a", "b", "c")]
    assert image_homes(image(), {"b"}, {"c"}, nodes) == ("b", "c")
    assert image_homes(image(), {"gone"}, (), nodes) == ("gone",)


def test_an_image_without_users_is_tried_on_one_node_that_can(image: MakeImage) -> None:
    nodes = [
        Candidate("a", unready="not ready", pools={"default": PoolRoom()}),
        Candidate("b", pools={"fast": PoolRoom()}),
        *(Candidate(f"n{n}", pools={"default": PoolRoom()}) for n in range(10)),
    ]
    home = image_homes(image(), (), (), nodes)
    assert home == image_homes(image(), (), (), list(reversed(nodes)))
    uids = (f"{n:08x}-0000-0000-0000-000000000000" for n in range(100))
    homes = {image_homes(image(metadata={"uid": uid}), (), (), nodes) for uid in uids}
    assert len(homes) > 5
    assert all(len(found) == 1 and found[0].startswith("n") for found in homes)
    assert image_homes(image(), (), (), nodes[:2]) == ()


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
