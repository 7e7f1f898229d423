"""The TLS listener of the aggregated API. It follows the front proxy's CA and its own certificate while it serves.

TLS itself refuses whoever has no certificate of the front proxy's CA; `front_proxy.identify` then checks the name.
"""

import asyncio
import logging
import socket
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from virtfleet_operator.kube.errors import KubeError
from virtfleet_operator.subresources.app import build_app
from virtfleet_operator.subresources.front_proxy import FrontProxy, FrontProxyError
from virtfleet_operator.subresources.ports import Cluster, Consoles, Counters, Uploads

logger = logging.getLogger(__name__)

RELOAD_SECONDS: Final = 60.0
"""How soon a new CA of the front proxy or a renewed certificate is used; kube-apiserver itself looks once a minute."""

RETRY_SECONDS: Final = 2.0
"""How soon the ConfigMap is asked for again as long as it could not be read at all."""

SHUTDOWN_SECONDS: Final = 5.0
"""How long sessions may take to say goodbye; a pod has 30 s in all."""


@dataclass(frozen=True)
class KeyPair:
    """A certificate with its chain and its key, PEM."""

    certificate: bytes
    key: bytes


class SubresourceServer:
    """Serves the aggregated API on a listening socket, which it does not close."""

    def __init__(
        self,
        listener: socket.socket,
        cluster: Cluster,
        consoles: Consoles,
        serving: Callable[[], KeyPair],
        uploads: Uploads | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._listener = listener
        self._cluster = cluster
        self._serving = serving
        self._front_proxy: FrontProxy | None = None
        self._used: tuple[FrontProxy, KeyPair] | None = None
        self._site: web.SockSite | None = None
        app = build_app(cluster, consoles, self._current_front_proxy, uploads, counters)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._runner.setup()
        try:
            while True:
                await self._reload()
                await asyncio.sleep(RELOAD_SECONDS if self._site else RETRY_SECONDS)
        finally:
            await self._runner.cleanup()

    async def _reload(self) -> None:
        """Listen with the present certificates; keep the former ones while the present ones cannot be read."""
        try:
            self._front_proxy = await self._cluster.read_front_proxy()
        except (KubeError, FrontProxyError) as error:
            logger.warning("Reading who may call fails", extra={"action": "ReadFrontProxy", "reason": str(error)})
        if self._front_proxy is None or self._used == (self._front_proxy, self._serving()):
            return
        self._used = (self._front_proxy, self._serving())
        # The new site takes connections from the same queue before the old one stops: none is refused in between.
        former, context = self._site, build_context(*self._used)
        self._site = web.SockSite(self._runner, self._listener.dup(), ssl_context=context)
        await self._site.start()
        if former is not None:
            await former.stop()

    def _current_front_proxy(self) -> FrontProxy:
        if self._front_proxy is None:
            raise FrontProxyError("Who may call is not known yet.")
        return self._front_proxy


def build_context(front_proxy: FrontProxy, serving: KeyPair) -> ssl.SSLContext:
    """Build the TLS settings: our certificate, and no peer but those of the front proxy's CA."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=front_proxy.ca_pem)
    context.verify_mode = ssl.CERT_REQUIRED
    # The ssl module reads certificates from files only; the folder is private to this user and gone at once.
    with tempfile.TemporaryDirectory(prefix="virtfleet-") as folder:
        chain, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        chain.write_bytes(serving.certificate)
        key.write_bytes(serving.key)
        context.load_cert_chain(chain, key)
    return context
