"""What enrolment needs of the API server. `kube.enrolment` implements it.

Whatever a method raises means that there was no answer: the daemon is told to try again later.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

Data = Mapping[str, bytes]
"""The decoded data of a Secret."""

OnEnrolled = Callable[[str, str, Mapping[str, str]], Awaitable[None]]
"""Called with node name, address and labels before the certificate is given out; raise to have the daemon try again."""


class Secrets(Protocol):
    """Secrets in the operator's namespace."""

    async def read_secret(self, name: str) -> Data | None:
        """Return the data of a Secret, or None if there is none."""

    async def create_secret(self, name: str, kind: str, data: Data) -> bool:
        """Create a Secret of a type; False if somebody else was first."""

    async def write_secret(self, name: str, data: Data) -> None:
        """Replace values of a Secret that is there, all at once."""


class Cluster(Protocol):
    """The objects that prove who a node is, all in the operator's namespace unless said otherwise."""

    async def read_authority(self) -> Data | None:
        """Return the data of Secret virtfleet-ca, or None if there is none."""

    async def create_authority(self, data: Data) -> bool:
        """Create Secret virtfleet-ca; False if somebody else was first."""

    async def publish_authority(self, ca_pem: str) -> None:
        """Have ConfigMap virtfleet-ca hold the certificate under `ca.crt`; write only if it does not."""

    async def read_join_tokens(self) -> Mapping[str, Data]:
        """Return the data of every Secret of the type of join tokens, by name."""

    async def delete_join_token(self, name: str) -> bool:
        """Delete a join token; False if it was gone already."""

    async def review_token(self, token: str, audience: str) -> Mapping[str, Any]:
        """Return the status of a TokenReview."""

    async def read_pod(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return a pod of any namespace, or None if there is none."""

    async def node_exists(self, name: str) -> bool:
        """Tell whether there is a VMNode of this name."""
