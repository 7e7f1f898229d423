"""The admission webhook's server: kopf's, with our certificate, and reached by a Service where there is one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import kopf

CONFIGURATION_NAME: Final = "validation.virtfleet.io"
"""The ValidatingWebhookConfiguration that kopf keeps current."""


@dataclass(frozen=True)
class ServiceTarget:
    """A Service that leads to the webhook."""

    namespace: str
    name: str
    port: int


class WebhookServer(kopf.WebhookServer):
    """kopf's server, told to the API server as a Service where there is one."""

    target: ServiceTarget | None = None

    async def __call__(self, fn: kopf.WebhookFn) -> AsyncIterator[kopf.WebhookClientConfig]:
        """Serve, and yield how the API server finds it."""
        async for config in super().__call__(fn):
            if self.target:
                service = kopf.WebhookClientConfigService(
                    namespace=self.target.namespace, name=self.target.name, port=self.target.port, path=""
                )
                yield kopf.WebhookClientConfig(service=service, caBundle=config["caBundle"])
            else:
                yield config


@dataclass(frozen=True)
class ServingFiles:
    """A folder with the webhook's certificate, key and CA; kopf looks once a minute whether they have changed."""

    folder: Path

    def build_server(self, host: str, port: int, url_host: str, target: ServiceTarget | None) -> WebhookServer:
        """Return a server that uses these files; `url_host` is the name in its certificate."""
        server = WebhookServer(
            addr=host,
            port=port,
            host=url_host,
            certfile=self.folder / "tls.crt",
            pkeyfile=self.folder / "tls.key",
            cafile=self.folder / "ca.crt",
        )
        server.target = target
        return server

    def write(self, certificate: bytes, key: bytes, ca_pem: bytes) -> None:
        """Write what has changed."""
        for name, content in (("tls.key", key), ("tls.crt", certificate), ("ca.crt", ca_pem)):
            path = self.folder / name
            if not path.exists() or path.read_bytes() != content:
                path.touch(mode=0o600)
                path.write_bytes(content)
