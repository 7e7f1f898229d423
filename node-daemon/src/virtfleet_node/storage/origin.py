"""Where a file comes from, and who is trusted on the way.

It is a web server that a user named, or another node of the fleet.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from virtfleet_api.image import Download, Image, Peer
from virtfleet_node.storage.failures import ImportFailedError

MAX_REDIRECTS: Final = 5

Tls = ssl.SSLContext | bool
"""As aiohttp takes it: True for what the system trusts."""


def _trust_system() -> Tls:
    return True


@dataclass(frozen=True)
class Origin:
    """One address of a file."""

    url: str
    sha256: str | None = None
    """The digest that the file must have."""
    pinned: str | None = None
    """The digest of the copies that there are already."""
    tls: Callable[[], Tls] = _trust_system
    server_name: str | None = None
    """The name in the server's certificate, where it is not the host of the URL."""
    authorization: str | None = field(default=None, repr=False)
    redirects: int = MAX_REDIRECTS
    peer: Peer | None = None
    max_bytes: int | None = None

    @property
    def identity(self) -> str:
        """Return what tells whether two downloads are of the same file, so that one can go on with the other's part."""
        return urlsplit(self.url).path if self.peer else self.url

    def check(self, sha256: str) -> None:
        """Refuse a file whose digest is not the expected one: ImportFailedError."""
        if self.sha256 not in {None, sha256}:
            raise ImportFailedError("ChecksumMismatch", f"The file's SHA-256 is {sha256}, not {self.sha256}.")
        if self.pinned not in {None, sha256}:
            raise ImportFailedError(
                "ChecksumMismatch",
                f"The file's SHA-256 is {sha256}, that of the copies there are {self.pinned}: the source has changed. "
                "Make another VMImage for the new file.",
            )

    def credentials_for(self, url: str) -> dict[str, str]:
        """Return the header for a request; nothing for another server, where a redirect may lead."""
        if self.authorization is None or _server(url) != _server(self.url):
            return {}
        return {"Authorization": self.authorization}

    def explain_refusal(self, status: int) -> str:
        """Say what to do about a server that wants to know who asks."""
        if self.peer is not None:
            return "It does not know the token of this image yet."
        if self.authorization is None:
            return f"The server answers {status}: name a Secret with what it asks for in secretRef."
        return f"The server answers {status}: it does not accept what the Secret of secretRef holds."


def download_origin(download: Download, pinned: str | None = None) -> Origin:
    """Return the web server that a user named; `pinned` is the digest of the copies that there are."""
    return Origin(
        url=download.url,
        sha256=download.sha256,
        pinned=pinned,
        tls=lambda: _private_tls(download.ca_bundle) if download.ca_bundle else True,
        authorization=download.authorization,
    )


def peer_origins(image: Image, tls: Callable[[], Tls], *, initrd: bool = False) -> tuple[Origin, ...]:
    """Return the nodes that a file of the image can be copied from; they are known by the fleet's certificates."""
    named = image.initrd if initrd else image.main
    pinned = named.sha256 if named and named.sha256 else None if initrd else image.sha256
    return tuple(
        Origin(
            url=f"https://{peer.address}/v1/images/{image.uid}/{'initrd' if initrd else 'content'}",
            sha256=digest,
            pinned=pinned,
            tls=tls,
            server_name=peer.node,
            authorization=f"Bearer {image.copy_token}",
            redirects=0,
            peer=peer,
            max_bytes=None if initrd else peer.size_bytes,
        )
        for peer in image.peers
        if image.copy_token and (digest := peer.initrd_sha256 if initrd else peer.sha256)
    )


def _private_tls(ca_bundle: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=ca_bundle)
    except (ssl.SSLError, ValueError) as error:
        raise ImportFailedError("TLSError", f"The caBundle holds no certificates in PEM: {error!s:.100}") from None


def _server(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
