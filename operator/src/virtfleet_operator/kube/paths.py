"""Where kinds live in the API server: the paths of collections, objects and their status."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from virtfleet_api.kinds import KINDS
from virtfleet_api.names import API_VERSION
from virtfleet_api.resource import Resource


class Key(NamedTuple):
    """Names one object: the unit of reconciling."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Write it as people do: VirtualMachine shop/web-1."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class KindPath:
    """The collection of a kind."""

    api: str
    """/api/v1 or /apis/<group>/<version>."""
    plural: str
    namespaced: bool = True

    def collection(self, namespace: str = "") -> str:
        """Return the path of the collection, of one namespace or of all."""
        return f"{self.api}/namespaces/{namespace}/{self.plural}" if namespace else f"{self.api}/{self.plural}"

    def object(self, namespace: str, name: str) -> str:
        """Return the path of one object."""
        return f"{self.collection(namespace)}/{name}"

    def status(self, namespace: str, name: str) -> str:
        """Return the path of its status subresource."""
        return f"{self.object(namespace, name)}/status"


def build_path(kind: type[Resource]) -> KindPath:
    """Return the path of one of our kinds."""
    return KindPath(f"/apis/{API_VERSION}", kind.plural, kind.namespaced)


OUR_PATHS: Final = {kind.__name__: build_path(kind) for kind in KINDS}
"""Paths of virtfleet's kinds, by kind."""

SECRETS: Final = KindPath("/api/v1", "secrets")
CONFIG_MAPS: Final = KindPath("/api/v1", "configmaps")
PODS: Final = KindPath("/api/v1", "pods")
CLAIMS: Final = KindPath("/api/v1", "persistentvolumeclaims")
VOLUMES: Final = KindPath("/api/v1", "persistentvolumes", namespaced=False)
NODES: Final = KindPath("/api/v1", "nodes", namespaced=False)
SERVICES: Final = KindPath("/api/v1", "services")
ENDPOINTS: Final = KindPath("/api/v1", "endpoints")
EVENTS: Final = KindPath("/api/v1", "events")
LEASES: Final = KindPath("/apis/coordination.k8s.io/v1", "leases")
TOKEN_REVIEWS: Final = KindPath("/apis/authentication.k8s.io/v1", "tokenreviews", namespaced=False)
ACCESS_REVIEWS: Final = KindPath("/apis/authorization.k8s.io/v1", "subjectaccessreviews", namespaced=False)
API_SERVICES: Final = KindPath("/apis/apiregistration.k8s.io/v1", "apiservices", namespaced=False)
CLUSTER_ROLES: Final = KindPath("/apis/rbac.authorization.k8s.io/v1", "clusterroles", namespaced=False)
