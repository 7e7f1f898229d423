"""The objects that enrolment reads and writes: implements `enrolment.ports` with the API server's client."""

import base64
from collections.abc import Mapping
from typing import Any, Final

from virtfleet_api.names import CA_NAME, FIELD_MANAGER, JOIN_TOKEN_TYPE, MANAGED_BY_LABEL
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.errors import ConflictError, NotFoundError
from virtfleet_operator.kube.paths import CONFIG_MAPS, OUR_PATHS, PODS, SECRETS, TOKEN_REVIEWS

_CA_KEY: Final = "ca.crt"

_LABELS: Final = {MANAGED_BY_LABEL: FIELD_MANAGER}


class EnrolmentCluster:
    """The API server, as enrolment needs it. Every method raises KubeError when there is no answer."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def read_authority(self) -> dict[str, bytes] | None:
        """Return the data of Secret virtfleet-ca, or None if there is none."""
        return await self.read_secret(CA_NAME)

    async def create_authority(self, data: Mapping[str, bytes]) -> bool:
        """Create Secret virtfleet-ca; False if somebody else was first."""
        return await self.create_secret(CA_NAME, "kubernetes.io/tls", data)

    async def read_secret(self, name: str) -> dict[str, bytes] | None:
        """Return the data of a Secret, or None if there is none."""
        found = await self._find(SECRETS.object(self._namespace, name))
        return None if found is None else _decode(found)

    async def create_secret(self, name: str, kind: str, data: Mapping[str, bytes]) -> bool:
        """Create a Secret of a type; False if somebody else was first."""
        body = {"type": kind, "metadata": {"name": name, "labels": _LABELS}, "data": _encode(data)}
        try:
            await self._client.create(SECRETS.collection(self._namespace), body)
        except ConflictError:
            return False
        return True

    async def write_secret(self, name: str, data: Mapping[str, bytes]) -> None:
        """Replace values of a Secret that is there, all at once."""
        await self._client.patch(SECRETS.object(self._namespace, name), {"data": _encode(data)})

    async def publish_authority(self, ca_pem: str) -> None:
        """Have ConfigMap virtfleet-ca hold the certificate; write only if it does not."""
        path, data = CONFIG_MAPS.object(self._namespace, CA_NAME), {_CA_KEY: ca_pem}
        found = await self._find(path) or await self._create_config_map(data)
        if (found.get("data") or {}).get(_CA_KEY) != ca_pem:
            await self._client.patch(path, {"data": data})

    async def _create_config_map(self, data: Mapping[str, str]) -> dict[str, Any]:
        body = {"metadata": {"name": CA_NAME, "labels": _LABELS}, "data": dict(data)}
        try:
            return await self._client.create(CONFIG_MAPS.collection(self._namespace), body)
        except ConflictError:  # another operator was first, with the same certificate unless it was replaced just now
            return await self._client.get(CONFIG_MAPS.object(self._namespace, CA_NAME))

    async def read_join_tokens(self) -> dict[str, dict[str, bytes]]:
        """Return the data of every join token, by the Secret's name."""
        query = {"fieldSelector": f"type={JOIN_TOKEN_TYPE}"}
        found = await self._client.get(SECRETS.collection(self._namespace), query)
        return {item["metadata"]["name"]: _decode(item) for item in found.get("items") or ()}

    async def delete_join_token(self, name: str) -> bool:
        """Delete a join token; False if it was gone already."""
        try:
            await self._client.delete(SECRETS.object(self._namespace, name))
        except NotFoundError:
            return False
        return True

    async def review_token(self, token: str, audience: str) -> Mapping[str, Any]:
        """Return the status of a TokenReview."""
        spec = {"token": token, "audiences": [audience]}
        review = await self._client.create(TOKEN_REVIEWS.collection(), {"spec": spec})
        status: Mapping[str, Any] = review.get("status") or {}
        return status

    async def read_pod(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return a pod, or None if there is none."""
        return await self._find(PODS.object(namespace, name))

    async def node_exists(self, name: str) -> bool:
        """Tell whether there is a VMNode of this name."""
        return await self._find(OUR_PATHS["VMNode"].object("", name)) is not None

    async def _find(self, path: str) -> dict[str, Any] | None:
        try:
            return await self._client.get(path)
        except NotFoundError:
            return None


def _encode(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


def _decode(secret: Mapping[str, Any]) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
