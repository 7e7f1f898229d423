"""VMNodes as enrolment writes them: the object of a daemon, and where it is reached."""

from collections.abc import Mapping
from typing import Final

from virtfleet_api.names import API_VERSION, FIELD_MANAGER, MANAGED_BY_LABEL
from virtfleet_operator.kube.client import Body, KubeClient
from virtfleet_operator.kube.errors import ConflictError, NotFoundError
from virtfleet_operator.kube.paths import OUR_PATHS

_NODES: Final = OUR_PATHS["VMNode"]


async def ensure_node(client: KubeClient, name: str, address: str, labels: Mapping[str, str]) -> None:
    """Create the VMNode if there is none, with the labels, and write where its daemon is reached.

    Raises:
        KubeError: the API server did not take it.
    """
    try:
        node = await client.get(_NODES.object("", name))
    except NotFoundError:
        node = await _create(client, name, labels)
    if (node.get("status") or {}).get("address") != address:
        await client.patch(_NODES.status("", name), {"status": {"address": address}})


async def _create(client: KubeClient, name: str, labels: Mapping[str, str]) -> Body:
    metadata = {"name": name, "labels": {**labels, MANAGED_BY_LABEL: FIELD_MANAGER}}
    body = {"apiVersion": API_VERSION, "kind": "VMNode", "metadata": metadata, "spec": {}}
    try:
        return await client.create(_NODES.collection(), body)
    except ConflictError:  # the same daemon asked twice
        return await client.get(_NODES.object("", name))
