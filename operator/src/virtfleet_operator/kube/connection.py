"""How the API server is reached: kubeconfig or the pod's ServiceAccount, read once, for our client and for kopf.

It must not hold a token longer than needed: tokens in pods are rotated, so every request asks for the current one.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import load_incluster_config, load_kube_config

USER_AGENT: Final = "virtfleet-operator"

_READ_BUFFER_BYTES: Final = 1 << 21
"""An object may have 1.5 MiB (etcd's limit), and a watch sends it in one line."""


@dataclass(frozen=True)
class Connection:
    """Where the API server is and how to prove who we are."""

    configuration: Configuration
    tls: ssl.SSLContext

    @property
    def server(self) -> str:
        """Return the base URL, such as https://10.96.0.1:443."""
        return str(self.configuration.host)

    def open_session(self, trace: aiohttp.TraceConfig | None = None) -> aiohttp.ClientSession:
        """Return a session that authenticates every request; the caller closes it."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self.tls),
            headers={"User-Agent": USER_AGENT},
            middlewares=(self._authenticate,),
            proxy=self.configuration.proxy,
            read_bufsize=_READ_BUFFER_BYTES,
            trace_configs=[trace] if trace else None,
        )

    async def _authenticate(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        settings = await self.configuration.auth_settings()
        if bearer := settings.get("BearerToken"):
            request.headers[bearer["key"]] = bearer["value"] or ""
        return await handler(request)


async def read_connection(kubeconfig: Path | None) -> Connection:
    """Read the kubeconfig file, or the pod's ServiceAccount when there is none.

    Raises:
        kubernetes.aio.config.ConfigException: neither is there or the file is not a kubeconfig.
    """
    configuration = Configuration()
    if kubeconfig:
        await load_kube_config(str(kubeconfig), client_configuration=configuration, persist_config=False)  # type: ignore[no-untyped-call]  # the library has no types here
    else:
        load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # the library has no types here
    return Connection(configuration, RESTClientObject(configuration).ssl_context)
