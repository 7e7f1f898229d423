"""The API server as enrolment sees it, in memory. A contract test runs the same cases on this and on the real one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from virtfleet_api.names import NODE_AUDIENCE
from virtfleet_operator.enrolment.ports import Data


@dataclass
class MemoryCluster:
    """Implements `enrolment.ports.Cluster`; `fails` is raised by every method while it is set."""

    namespace: str = "virtfleet-system"
    authority: Data | None = None
    published: str | None = None
    publications: int = 0
    tokens: dict[str, Data] = field(default_factory=dict)
    reviews: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    pods: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    nodes: dict[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    secrets: dict[str, Data] = field(default_factory=dict)
    """Those of OVN."""
    kinds: dict[str, str] = field(default_factory=dict)
    fails: Exception | None = None

    def _answer(self) -> None:
        if self.fails:
            raise self.fails

    async def read_authority(self) -> Data | None:
        self._answer()
        return self.authority

    async def create_authority(self, data: Data) -> bool:
        self._answer()
        if self.authority is not None:
            return False
        self.authority = dict(data)
        return True

    async def read_secret(self, name: str) -> Data | None:
        self._answer()
        return self.secrets.get(name)

    async def create_secret(self, name: str, kind: str, data: Data) -> bool:
        self._answer()
        if name in self.secrets:
            return False
        self.secrets[name], self.kinds[name] = dict(data), kind
        return True

    async def write_secret(self, name: str, data: Data) -> None:
        self._answer()
        self.secrets[name] = {**self.secrets[name], **data}

    async def publish_authority(self, ca_pem: str) -> None:
        self._answer()
        if self.published != ca_pem:
            self.published = ca_pem
            self.publications += 1

    async def read_join_tokens(self) -> Mapping[str, Data]:
        self._answer()
        return dict(self.tokens)

    async def delete_join_token(self, name: str) -> bool:
        self._answer()
        return self.tokens.pop(name, None) is not None

    async def review_token(self, token: str, audience: str) -> Mapping[str, Any]:
        self._answer()
        assert audience == NODE_AUDIENCE
        return self.reviews.get(token, {"user": {}, "error": "invalid bearer token"})

    async def read_pod(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        self._answer()
        return self.pods.get((namespace, name))

    async def node_exists(self, name: str) -> bool:
        self._answer()
        return name in self.nodes

    async def ensure_node(self, name: str, address: str, labels: Mapping[str, str]) -> None:
        """Take a node in: what the operator does when one has enrolled."""
        self._answer()
        self.nodes[name] = (address, labels)

    def add_join_token(self, name: str, token: str, node_name: str, **more: str) -> None:
        """Create a join token, as an administrator does."""
        values = {"token": token, "nodeName": node_name, **more}
        self.tokens[name] = {key: value.encode() for key, value in values.items()}
