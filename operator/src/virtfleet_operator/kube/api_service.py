"""Keeps the registration of the aggregated API current: its APIService, and outside a cluster the Service it names."""

import base64
from dataclasses import dataclass
from typing import Any, Final

from virtfleet_api.names import FIELD_MANAGER, MANAGED_BY_LABEL, SUBRESOURCES_GROUP, VERSION
from virtfleet_operator.core.writes import merge_patch
from virtfleet_operator.kube.client import Body, KubeClient
from virtfleet_operator.kube.errors import NotFoundError, RefusedError
from virtfleet_operator.kube.paths import API_SERVICES, CLUSTER_ROLES, SERVICES, KindPath

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
    await _ensure(client, API_SERVICES, _build_api_service(endpoint, ca_pem, await _find_owners(client)))


async def _find_owners(client: KubeClient) -> list[Body]:
    """Return what the registration goes with: the operator's ClusterRole, which whoever removes the operator removes.

    A registration whose server is gone would hold up the deletion of every namespace.
    """
    try:
        found = await client.get(CLUSTER_ROLES.object("", FIELD_MANAGER))
    except (NotFoundError, RefusedError):
        return []  # somebody gave the rights another name
    owner = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": FIELD_MANAGER}
    return [{**owner, "uid": found["metadata"]["uid"]}]


def _build_api_service(endpoint: Endpoint, ca_pem: bytes, owners: list[Body]) -> Body:
    spec = {
        "group": SUBRESOURCES_GROUP,
        "version": VERSION,
        "service": {"namespace": endpoint.namespace, "name": SERVICE_NAME, "port": endpoint.port},
        "caBundle": base64.b64encode(ca_pem).decode(),
        "groupPriorityMinimum": _GROUP_PRIORITY,
        "versionPriority": _VERSION_PRIORITY,
    }
    built = _build("apiregistration.k8s.io/v1", "APIService", f"{VERSION}.{SUBRESOURCES_GROUP}", "", spec)
    if owners:
        built["metadata"]["ownerReferences"] = owners
    return built


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
    metadata = {key: wanted["metadata"][key] for key in ("ownerReferences",) if key in wanted["metadata"]}
    if change or merge_patch(found["metadata"], {**found["metadata"], **metadata}):
        await client.patch(path.object(namespace, name), {"spec": change, "metadata": metadata})
