"""A catalog of objects as their manifests, for tests of the network's core."""

from typing import Any

from virtfleet_api.names import API_VERSION
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.reconcile.catalog import INDEXERS, CacheCatalog

UID = "123e4567-e89b-42d3-a456-426614174000"
OTHER = "123e4567-e89b-42d3-a456-426614174001"
TENANT = {
    "subnet": {"cidr": "10.1.0.0/24", "gateway": "10.1.0.1"},
    "portGroups": [
        {
            "name": "web",
            "vlan": 101,
            "bandwidth": {"inbound": {"average": "100Mbit"}},
            "securityGroups": [{"namespace": "shop", "name": "web"}],
            "antiSpoof": False,
        },
        {"name": "desk", "binding": "Dynamic"},
    ],
}


class World:
    """A catalog of objects, as their manifests."""

    def __init__(self) -> None:
        self.cache = Cache(INDEXERS)
        self.catalog = CacheCatalog(self.cache)

    def add(self, kind: str, name: str, spec: dict[str, Any], namespace: str = "", **more: Any) -> Any:
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": more.pop("uid", f"{kind}-{name}"),
            "resourceVersion": "1",
        }
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec, **more}
        self.cache.put(kind, body)
        found = next(s for s in self.cache.all(kind) if s.key.name == name and s.key.namespace == namespace)
        return found.resource

    def machine(self, name: str, card: dict[str, Any], uid: str = UID, **spec: Any) -> VirtualMachine:
        card = {"name": "eth0", "switch": "tenant", **card}
        made = self.add(
            "VirtualMachine", name, {"memory": {"guest": "1Gi"}, "networks": [card], **spec}, "shop", uid=uid
        )
        assert isinstance(made, VirtualMachine), made
        return made
