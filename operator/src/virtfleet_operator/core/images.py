"""From a VMImage to the documents for the nodes."""

import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from virtfleet_api.image import DiskOrigin, Download, Image, ImageFormat, ImageReport, Peer, SnapshotOrigin
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import DiskReference, SnapshotDiskReference
from virtfleet_api.vm_image import HttpSource, ImagePhase, VMImage, VMImageStatus
from virtfleet_operator.core.image_origins import Origin
from virtfleet_operator.core.snapshot_disks import SnapshotDisk
from virtfleet_operator.core.sources import Source

MOST_PEERS: Final = 3
"""Nodes that a node is told to copy from: the next is asked when one fails."""

_SCHEME: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class Supply:
    """What one node is told besides the image itself: whom to ask for it, and with what."""

    authorization: str | None = field(default=None, repr=False)
    initrd_authorization: str | None = field(default=None, repr=False)
    copy_token: str | None = field(default=None, repr=False)
    peers: tuple[Peer, ...] = ()
    sha256: str | None = None
    origin: Origin | None = None
    """What the image is copied from, for the node that it is on."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A node that can be asked for a copy, and what it says of it."""

    node: str
    address: str
    """host:port of its copies."""
    report: ImageReport


def compile_image(image: VMImage, supply: Supply | None = None, *, present: bool = True) -> Image:
    """Compile an image; with `present` false, the document that removes it."""
    source, supply = image.spec.source, supply or Supply()
    return Image(
        uid=image.metadata.uid,
        namespace=image.metadata.namespace,
        name=image.metadata.name,
        type=image.spec.type,
        pool=image.spec.pool,
        main=_download(source.http, supply.authorization) if source.http else None,
        initrd=_download(source.initrd, supply.initrd_authorization) if source.initrd else None,
        disk=_disk(source.disk, supply.origin) if source.disk else None,
        snapshot=_snapshot(source.snapshot, supply.origin) if source.snapshot else None,
        present=present,
        sha256=supply.sha256,
        peers=supply.peers,
        copy_token=supply.copy_token,
    )


def copy_token(key: bytes, uid: str) -> str:
    """Return what nodes show each other to copy an image: as good as random to whoever lacks the operator's key."""
    return hmac.new(key, uid.encode(), hashlib.sha256).hexdigest()


def known_digest(image: VMImage) -> str | None:
    """Return the digest that every copy must have: the user's word, or else that of the copies there are."""
    named = image.spec.source.http.checksum if image.spec.source.http else None
    found = named or image.status.checksum
    return found.removeprefix(_SCHEME) if found else None


def choose_peers(image: VMImage, node: str, holders: Iterable[Holder]) -> tuple[Peer, ...]:
    """Return the nodes that a node shall copy from, in its own order, so that many nodes ask many."""
    digest = known_digest(image)
    peers = [
        Peer(
            node=holder.node,
            address=holder.address,
            sha256=holder.report.sha256,
            size_bytes=holder.report.file_size_bytes,
            initrd_sha256=holder.report.initrd_sha256,
        )
        for holder in holders
        if holder.node != node and _is_whole(holder.report) and digest in {None, holder.report.sha256}
    ]
    return tuple(sorted(peers, key=lambda peer: _order(f"{node}/{peer.node}"))[:MOST_PEERS])


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
        sha256=status.checksum.removeprefix(_SCHEME) if status.checksum else None,
    )
    return {node.name: copy for node in status.nodes if node.phase is ImagePhase.READY and node.name in silent}


def pinned_checksum(old: str | None, reports: Mapping[str, ImageReport]) -> str | None:
    """Return the checksum of a status: the one it told before while a copy has it, or that of the first copy."""
    found = [
        f"{_SCHEME}{report.sha256}"
        for _, report in sorted(reports.items())
        if report.phase is ImagePhase.READY and report.sha256
    ]
    return old if old in found else next(iter(found), None)


def _is_whole(report: ImageReport) -> bool:
    return report.phase is ImagePhase.READY and report.sha256 is not None and report.file_size_bytes is not None


def _order(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _disk(reference: DiskReference, origin: Origin | None) -> DiskOrigin:
    named = DiskOrigin(machine=reference.virtual_machine, name=reference.name)
    if not isinstance(origin, Source):
        return named
    return named.model_copy(update={"machine_uid": origin.machine_uid, "pool": origin.pool})


def _snapshot(reference: SnapshotDiskReference, origin: Origin | None) -> SnapshotOrigin:
    uid = origin.snapshot_uid if isinstance(origin, SnapshotDisk) else None
    return SnapshotOrigin(snapshot=reference.name, name=reference.disk, snapshot_uid=uid)


def _download(http: HttpSource, authorization: str | None) -> Download:
    return Download(
        url=http.url,
        sha256=http.checksum.removeprefix(_SCHEME) if http.checksum else None,
        ca_bundle=http.ca_bundle,
        authenticated=http.secret_ref is not None,
        authorization=authorization,
    )
