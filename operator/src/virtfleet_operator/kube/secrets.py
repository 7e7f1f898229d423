"""Secrets that machines and images name, read when a document is compiled.

They are not watched: a watch would need the right to list every Secret of the cluster and would keep them all in
memory. What is read is kept for a minute, so that a burst of reports does not read it again and again.
"""

import asyncio
import base64
import binascii
from typing import Final

from virtfleet_api.names import JOIN_TOKEN_TYPE, OVN_TYPE
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.errors import NotFoundError
from virtfleet_operator.kube.paths import SECRETS

FRESH_SECONDS: Final = 60.0
"""How long a changed Secret may go unnoticed by a machine that is looked at anyway."""

MOST_REMEMBERED: Final = 1000
"""About 64 KiB each at most."""

_NOBODYS: Final = frozenset(
    {"kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token", JOIN_TOKEN_TYPE, OVN_TYPE}
)
"""Secrets that speak for somebody else: naming one in an object must not hand it to a guest or a web server."""


class SecretReader:
    """Reads Secrets by name."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._known: dict[tuple[str, str], tuple[float, dict[str, bytes] | None]] = {}

    async def read(self, namespace: str, name: str) -> dict[str, bytes] | None:
        """Return the data of a Secret; None if there is none of that name."""
        now = asyncio.get_running_loop().time()
        known = self._known.get((namespace, name))
        if known and known[0] > now and known[1] is not None:
            return known[1]  # that there is none is not remembered: somebody waits for it
        data = await self._fetch(namespace, name)
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[namespace, name] = (now + FRESH_SECONDS, data)
        return data

    async def _fetch(self, namespace: str, name: str) -> dict[str, bytes] | None:
        try:
            body = await self._client.get(SECRETS.object(namespace, name))
        except NotFoundError:
            return None
        if body.get("type") in _NOBODYS:
            return {}
        try:
            return {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}
        except binascii.Error:  # the API server writes base64 itself; a broken one is as good as none
            return {}
