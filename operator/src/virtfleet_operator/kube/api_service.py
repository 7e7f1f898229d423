"""Keeps the registration of the aggregated API current: its APIService, and outside a cluster the Service it names."""

import base64
from dataclasses import dataclass
from typing import Any, Final

from virtfleet_api.names import FIELD_MANAGER, MANAGED_BY_LABEL, SUBRESOURCES_GROUP, VERSION
from virtfleet_operator.core.writes import merge_patch
from virtfleet_operator.kube.client import Body, KubeClient
from virtfleet_operator.kube.errors import NotFoundError
from virtfleet_operator.kube.paths import API_SERVICES, SERVICES, KindPath

SERVICE_NAME: Final = "virtfleet-subresources"

_GROUP_PRIORITY: Final = 1000
"""Below Kubernetes' own groups (9,600 and up): ours never decides what a bare resource name means."""

_VERSION_PRIORITY: Final = 15


@dataclass(frozen=True)
class Endpoint:
    """Where the API server finds the aggregated API."""

    namespace: str
    port: int
    external_name: str | None
    """DNS name of the operator outside the cluster; without it the Service is the installation's own."""

    @property
    def dns_name(self) -> str:
        """Return the name that the API server expects in the serving certificate."""
        return f"{SERVICE_NAME}.{self.namespace}.svc"


async def ensure_api_service(client: KubeClient, endpoint: Endpoint, ca_pem: bytes) -> None:
    """Create or correct the registration.

    Raises:
        KubeError: the API server did not take it.
    """
    if endpoint.external_name:
        spec = {"type": "ExternalName", "externalName": endpoint.external_name}
        await _ensure(client, SERVICES, _build("v1", "Service", SERVICE_NAME, endpoint.namespace, spec))
    await _ensure(client, API_SERVICES, _build_api_service(endpoint, ca_pem))


def _build_api_service(endpoint: Endpoint, ca_pem: bytes) -> Body:
    spec = {
        "group": SUBRESOURCES_GROUP,
        "version": VERSION,
        "service": {"namespace": endpoint.namespace, "name": SERVICE_NAME, "port": endpoint.port},
        "caBundle": base64.b64encode(ca_pem).decode(),
        "groupPriorityMinimum": _GROUP_PRIORITY,
        "versionPriority": _VERSION_PRIORITY,
    }
    return _build("apiregistration.k8s.io/v1", "APIService", f"{VERSION}.{SUBRESOURCES_GROUP}", "", spec)


def _build(api_version: str, kind: str, name: str, namespace: str, spec: dict[str, Any]) -> Body:
    labels = {MANAGED_BY_LABEL: FIELD_MANAGER}
    metadata = {"name": name, "labels": labels, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


async def _ensure(client: KubeClient, path: KindPath, wanted: Body) -> None:
    namespace, name = wanted["metadata"].get("namespace", ""), wanted["metadata"]["name"]
    try:
        found = await client.get(path.object(namespace, name))
    except NotFoundError:
        await client.create(path.collection(namespace), wanted)
        return
    # What others have added (defaults, a cluster IP) stays: only what is wanted is compared.
    change = {key: value for key, value in merge_patch(found["spec"], wanted["spec"]).items() if value is not None}
    if change:
        await client.patch(path.object(namespace, name), {"spec": change})
