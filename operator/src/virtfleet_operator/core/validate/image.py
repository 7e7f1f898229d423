"""Rules about images.

The address of an image is fetched by a hypervisor, and what it answers becomes readable in a guest. Addresses that
mean the hypervisor itself (loopback) or its link (cloud metadata services) are refused here; the node daemon checks
again what a name resolves to.
"""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

from cryptography import x509

from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_image import HttpSource, ImagePhase, ImageSource, ImageType, VMImage
from virtfleet_operator.core.verdict import quote

_EXAMPLE: Final = '"https://images.example.org/debian-12.qcow2"'
_HOST_NAME: Final = re.compile(
    r"([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?\Z"
)
_NAMED_USERS: Final = 3  # enough to find them; the rest is counted


def image_problems(image: VMImage, old: VMImage | None = None) -> tuple[str, ...]:
    """Check an image; `old` is what it replaces, where that is known."""
    return tuple(_problems(image, old))


def image_deletion_problems(image: ObjectMeta, users: Sequence[str]) -> tuple[str, ...]:
    """Say who keeps an image from being deleted."""
    if not users:
        return ()
    problem = (
        f"VMImage {image.name} is used by {listed_users(users)}: "
        "delete these machines first, or take the image out of their spec"
    )
    return (problem,)


def listed_users(users: Sequence[str]) -> str:
    """Name the machines that stand in the way, the first few of them."""
    named = ", ".join(sorted(users)[:_NAMED_USERS])
    more = f" and {len(users) - _NAMED_USERS} more" if len(users) > _NAMED_USERS else ""
    return f"machine{'s' if len(users) > 1 else ''} {named}{more}"


def _problems(image: VMImage, old: VMImage | None) -> Iterator[str]:
    source = image.spec.source
    given = [name for name in ("http", "upload", "disk", "snapshot") if getattr(source, name) is not None]
    if len(given) != 1:
        said = f"names {' and '.join(given)}" if given else "names neither http, upload, disk nor snapshot"
        yield f'spec.source: {said}: write exactly one, such as "http: {{url: {_EXAMPLE[1:-1]}}}" or "upload: {{}}"'
    for name in ("disk", "snapshot"):
        if getattr(source, name) is not None and image.spec.type != ImageType.DISK:
            yield f"spec.source.{name}: gives a disk: write type: Disk, or another source"
    if source.http:
        yield from _http_problems("spec.source.http", source.http)
    if source.initrd:
        yield from _http_problems("spec.source.initrd", source.initrd)
    if source.initrd and image.spec.type != ImageType.KERNEL:
        yield "spec.source.initrd: belongs to a kernel: write type: Kernel, or remove the initrd"
    if old is not None and old.status.phase not in (None, ImagePhase.PENDING, ImagePhase.FAILED):
        yield from _change_problems(image, old)


def _change_problems(image: VMImage, old: VMImage) -> Iterator[str]:
    """An imported image is a fact that disks are built on."""
    same = {
        "source": _content(image.spec.source) == _content(old.spec.source),
        "type": image.spec.type == old.spec.type,
        "pool": image.spec.pool == old.spec.pool,
    }
    for field, kept in same.items():
        if not kept:
            yield (
                f"spec.{field}: cannot change once the image is imported: "
                "write what it was, or make another VMImage for the new one"
            )


def _content(source: ImageSource) -> ImageSource:
    """Return a source without what only says how to reach it, which may change when a password does."""
    how = {"secret_ref": None, "ca_bundle": None}
    http, initrd = (part and part.model_copy(update=how) for part in (source.http, source.initrd))
    return source.model_copy(update={"http": http, "initrd": initrd})


def _http_problems(where: str, http: HttpSource) -> Iterator[str]:
    try:
        url = urlsplit(http.url)
        _ = url.port
    except ValueError:
        yield f"{where}.url: {quote(http.url)} is not an address: write one such as {_EXAMPLE}"
        return
    if "@" in url.netloc:
        yield (
            f"{where}.url: holds a user name or password, which everyone who may read the image would see: "
            "write the address without what stands before the @"
        )
    elif remedy := _host_remedy(url):
        yield f"{where}.url: {remedy}"
    if url.fragment:
        yield f'{where}.url: has a "#", which no server sees: write the address without it'
    if http.ca_bundle is not None:
        yield from _bundle_problems(f"{where}.caBundle", http.ca_bundle, url)


def _bundle_problems(where: str, bundle: str, url: SplitResult) -> Iterator[str]:
    if url.scheme != "https":
        yield f"{where}: has no effect without TLS: write an https address, or remove it"
    try:
        x509.load_pem_x509_certificates(bundle.encode())
    except ValueError:
        yield f'{where}: is not certificates in PEM: write them as they are, from "-----BEGIN CERTIFICATE-----" on'


def _host_remedy(url: SplitResult) -> str:
    """Return what is wrong with the host of an address, or nothing."""
    host = url.hostname or ""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        if host.rstrip(".").lower() == "localhost" or host.lower().rstrip(".").endswith(".localhost"):
            return f"{quote(host)} is the hypervisor itself: write an address that the nodes reach, such as {_EXAMPLE}"
        if not _HOST_NAME.match(host):
            return f"{quote(host)} is not a host: write a DNS name or an IP address, such as {_EXAMPLE}"
        return ""
    mapped = getattr(ip, "ipv4_mapped", None) or ip
    if mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified or mapped.is_multicast:
        return f"{quote(host)} is no address of a web server: write one that the nodes reach, such as {_EXAMPLE}"
    return ""
