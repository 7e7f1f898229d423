"""What enrolling nodes reads and writes in Kubernetes: the CA, join tokens, token reviews, pods and VMNodes."""

import base64
from collections.abc import Mapping
from typing import Any, NamedTuple

from virtfleet_api.names import API_VERSION, FIELD_MANAGER, MANAGED_BY_LABEL
from virtfleet_operator.kube.client import Body, KubeClient
from virtfleet_operator.kube.errors import NotFoundError
from virtfleet_operator.kube.paths import CONFIG_MAPS, OUR_PATHS, PODS, SECRETS, TOKEN_REVIEWS

_NODES = OUR_PATHS["VMNode"]


class SecretVersion(NamedTuple):
    """A Secret as it was read."""

    name: str
    resource_version: str
    data: Mapping[str, bytes]


class EnrolmentStore:
    """Kubernetes as enrolment sees it. Every method raises KubeError when there is no answer."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def read_secret(self, name: str) -> Mapping[str, bytes] | None:
        """Return the data of a Secret, or None."""
        try:
            return _decode(await self._client.get(SECRETS.object(self._namespace, name)))
        except NotFoundError:
            return None

    async def create_secret(self, name: str, type_: str, data: Mapping[str, bytes]) -> None:
        """Create a Secret; ConflictError when there is one."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        body = {**self._build("v1", "Secret", name), "type": type_, "data": encoded}
        await self._client.create(SECRETS.collection(self._namespace), body)

    async def list_secrets(self, type_: str) -> list[SecretVersion]:
        """Return all Secrets of a type."""
        query = {"fieldSelector": f"type={type_}"}
        found = await self._client.get(SECRETS.collection(self._namespace), query)
        return [
            SecretVersion(item["metadata"]["name"], item["metadata"]["resourceVersion"], _decode(item))
            for item in found["items"]
        ]

    async def delete_secret(self, name: str, resource_version: str) -> None:
        """Delete this version of a Secret; ConflictError or NotFoundError when somebody was quicker."""
        await self._client.delete(SECRETS.object(self._namespace, name), resource_version)

    async def publish_config_map(self, name: str, data: Mapping[str, str]) -> None:
        """Create or correct a ConfigMap."""
        path = CONFIG_MAPS.object(self._namespace, name)
        try:
            found = await self._client.get(path)
        except NotFoundError:
            body = {**self._build("v1", "ConfigMap", name), "data": dict(data)}
            await self._client.create(CONFIG_MAPS.collection(self._namespace), body)
            return
        if found.get("data") != data:
            await self._client.patch(path, {"data": dict(data)})

    async def review_token(self, token: str, audience: str) -> Mapping[str, Any]:
        """Ask the API server whose token this is; return the status of the TokenReview."""
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        answer = await self._client.create(TOKEN_REVIEWS.collection(), review)
        status: Mapping[str, Any] = answer.get("status") or {}
        return status

    async def read_pod(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return a pod, or None."""
        try:
            return await self._client.get(PODS.object(namespace, name))
        except NotFoundError:
            return None

    async def node_exists(self, name: str) -> bool:
        """Say whether there is a VMNode of this name."""
        return await self._read_node(name) is not None

    async def ensure_node(self, name: str, address: str, labels: Mapping[str, str]) -> None:
        """Create the VMNode if there is none, and write where its daemon is reached."""
        node = await self._read_node(name)
        if node is None:
            body = self._build(API_VERSION, "VMNode", name)
            body["metadata"] = {"name": name, "labels": {**labels, MANAGED_BY_LABEL: FIELD_MANAGER}}
            node = await self._client.create(_NODES.collection(), {**body, "spec": {}})
        if (node.get("status") or {}).get("address") != address:
            await self._client.patch(_NODES.status("", name), {"status": {"address": address}})

    async def _read_node(self, name: str) -> Body | None:
        try:
            return await self._client.get(_NODES.object("", name))
        except NotFoundError:
            return None

    def _build(self, api_version: str, kind: str, name: str) -> Body:
        labels = {MANAGED_BY_LABEL: FIELD_MANAGER}
        metadata = {"name": name, "namespace": self._namespace, "labels": labels}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _decode(secret: Body) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
