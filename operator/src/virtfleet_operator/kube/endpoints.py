"""Has Services without a selector lead to the operator that leads: their Endpoints hold its address alone.

Readiness could not say this: an operator that waits to lead is as healthy as the one that leads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from virtfleet_api.names import FIELD_MANAGER, MANAGED_BY_LABEL
from virtfleet_operator.kube.client import Body, KubeClient
from virtfleet_operator.kube.errors import ConflictError, NotFoundError
from virtfleet_operator.kube.paths import ENDPOINTS

PORT_NAME: Final = "https"
"""Name of the one port of each of the Services: a Service and its Endpoints find each other's ports by name."""


@dataclass(frozen=True)
class ServedService:
    """A Service that leads to one of this operator's servers."""

    name: str
    port: int
    """Where the server listens, on the operator's own address."""


class ServiceEndpoints:
    """The Endpoints of the operator's Services."""

    def __init__(self, client: KubeClient, namespace: str, address: str, services: Sequence[ServedService]) -> None:
        """Take the operator's own address and what it serves."""
        self._client = client
        self._namespace = namespace
        self._address = address
        self._services = tuple(services)

    async def ensure(self) -> None:
        """Have every Service lead here.

        Raises:
            KubeError: the API server did not take it.
        """
        for service in self._services:
            await self._ensure(service)

    async def withdraw(self) -> None:
        """Have the Services lead nowhere, unless they lead to another operator by now.

        Raises:
            KubeError: the API server did not take it.
        """
        for service in self._services:
            await self._withdraw(service)

    async def _ensure(self, service: ServedService) -> None:
        wanted = [_subset(self._address, service.port)]
        try:
            found = await self._client.get(ENDPOINTS.object(self._namespace, service.name))
        except NotFoundError:
            await self._client.create(ENDPOINTS.collection(self._namespace), _build(service.name, wanted))
            return
        if found.get("subsets") != wanted:
            await self._client.patch(ENDPOINTS.object(self._namespace, service.name), {"subsets": wanted})

    async def _withdraw(self, service: ServedService) -> None:
        path = ENDPOINTS.object(self._namespace, service.name)
        try:
            found = await self._client.get(path)
            if found.get("subsets") != [_subset(self._address, service.port)]:
                return
            # The version makes it conditional: who leads next may write at this moment.
            version = found["metadata"]["resourceVersion"]
            await self._client.patch(path, {"metadata": {"resourceVersion": version}, "subsets": None})
        except (NotFoundError, ConflictError):
            return


def _subset(address: str, port: int) -> dict[str, Any]:
    return {"addresses": [{"ip": address}], "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP"}]}


def _build(name: str, subsets: list[dict[str, Any]]) -> Body:
    metadata = {"name": name, "labels": {MANAGED_BY_LABEL: FIELD_MANAGER}}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}
