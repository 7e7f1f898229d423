"""From a VMImage to the document for the nodes, and which nodes shall hold it."""

import hashlib
from collections.abc import Collection, Iterable

from virtfleet_api.image import Download, Image, ImageFormat, ImageReport
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_image import HttpSource, ImagePhase, VMImage, VMImageStatus
from virtfleet_operator.core.place import Candidate


def compile_image(image: VMImage, *, present: bool = True) -> Image:
    """Compile an image; with `present` false, the document that removes it."""
    source = image.spec.source
    return Image(
        uid=image.metadata.uid,
        namespace=image.metadata.namespace,
        name=image.metadata.name,
        type=image.spec.type,
        pool=image.spec.pool,
        main=_download(source.http),
        initrd=_download(source.initrd) if source.initrd else None,
        present=present,
    )


def image_homes(
    image: VMImage, user_nodes: Collection[str], holding: Collection[str], nodes: Iterable[Candidate]
) -> tuple[str, ...]:
    """Return the nodes that shall hold an image: those of its machines, and those that have it already.

    An image that nobody uses yet is imported by one node, so that it is known to be good before it is needed; which
    one follows from its UID, so that many images spread.
    """
    homes = {*user_nodes, *holding}
    if not homes:
        able = [node.name for node in nodes if not node.unready and _takes(node, image.spec.pool)]
        homes = set(sorted(able, key=lambda name: hashlib.sha256(f"{image.metadata.uid}/{name}".encode()).digest())[:1])
    return tuple(sorted(homes))


def _takes(node: Candidate, pool: str) -> bool:
    return pool in node.pools and not node.pools[pool].nearly_full


def remembered_copies(image: ObjectMeta, status: VMImageStatus, silent: Collection[str]) -> dict[str, ImageReport]:
    """Return the ready copies, by node, of nodes that are silent since this operator started: they are still there."""
    known = status.format if status.format in set(ImageFormat) else None
    copy = ImageReport(
        uid=image.uid,
        namespace=image.namespace,
        name=image.name,
        phase=ImagePhase.READY,
        format=ImageFormat(known) if known else None,
        virtual_size_bytes=status.virtual_size,
        actual_size_bytes=status.actual_size,
    )
    return {node.name: copy for node in status.nodes if node.phase is ImagePhase.READY and node.name in silent}


def _download(http: HttpSource) -> Download:
    return Download(url=http.url, sha256=http.checksum.removeprefix("sha256:") if http.checksum else None)
