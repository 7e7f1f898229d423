"""The documents of the aggregated API: discovery, OpenAPI and Status. Pure."""

from typing import Any, Final

from virtfleet_api.names import SUBRESOURCES_API_VERSION, SUBRESOURCES_GROUP, VERSION
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_image import VMImage

Document = dict[str, Any]

_VERSION: Final = {"groupVersion": SUBRESOURCES_API_VERSION, "version": VERSION}
_GROUP: Final = {"name": SUBRESOURCES_GROUP, "versions": [_VERSION], "preferredVersion": _VERSION}

GROUP_LIST: Final[Document] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP]}
"""Answer to /apis."""

GROUP: Final[Document] = {"kind": "APIGroup", "apiVersion": "v1", **_GROUP}
"""Answer to /apis/<group>."""

RESOURCES: Final[Document] = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": SUBRESOURCES_API_VERSION,
    "resources": [
        {
            "name": f"{VirtualMachine.plural}/console",
            "singularName": "",
            "namespaced": True,
            "kind": "VirtualMachine",
            "verbs": ["get"],
        },
        {
            "name": f"{VirtualMachine.plural}/ports",
            "singularName": "",
            "namespaced": True,
            "kind": "VirtualMachine",
            "verbs": ["get"],
        },
        {
            "name": f"{VirtualMachine.plural}/vnc",
            "singularName": "",
            "namespaced": True,
            "kind": "VirtualMachine",
            "verbs": ["get"],
        },
        {
            "name": f"{VirtualMachine.plural}/portforward",
            "singularName": "",
            "namespaced": True,
            "kind": "VirtualMachine",
            "verbs": ["get"],
        },
        {
            "name": f"{VMImage.plural}/upload",
            "singularName": "",
            "namespaced": True,
            "kind": "VMImage",
            "verbs": ["get", "update"],
        },
    ],
}
"""Answer to /apis/<group>/<version>."""

OPENAPI: Final[Document] = {"swagger": "2.0", "info": {"title": SUBRESOURCES_GROUP, "version": VERSION}, "paths": {}}
"""Answer to /openapi/v2: the API server merges it, and a WebSocket has no description there."""


class StatusError(Exception):
    """A request cannot be served; becomes a Status object, which kubectl shows as a sentence."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


def build_status(error: StatusError, name: str = "", resource: str = VirtualMachine.plural) -> Document:
    """Build the Status object (metav1.Status) of an error."""
    details = {"group": SUBRESOURCES_GROUP, "kind": resource, "name": name} if name else {}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": str(error),
        "reason": error.reason,
        "details": details,
        "code": error.code,
    }
