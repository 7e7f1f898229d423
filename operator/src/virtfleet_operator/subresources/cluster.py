"""The API server's answers, asked for each time anew: nothing here is cached, so a right that is taken away is gone."""

from typing import Final

from pydantic import ValidationError

from virtfleet_api.names import SUBRESOURCES_GROUP, VERSION
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_image import VMImage
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.errors import NotFoundError
from virtfleet_operator.kube.paths import ACCESS_REVIEWS, CONFIG_MAPS, OUR_PATHS
from virtfleet_operator.subresources.front_proxy import FrontProxy, User, parse_front_proxy
from virtfleet_operator.subresources.ports import Target

_MACHINES: Final = OUR_PATHS["VirtualMachine"]
_IMAGES: Final = OUR_PATHS["VMImage"]


class KubeCluster:
    """The cluster behind a client of its API server."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def read_front_proxy(self) -> FrontProxy:
        """Read how the API server proves itself; FrontProxyError when the cluster does not say."""
        path = CONFIG_MAPS.object("kube-system", "extension-apiserver-authentication")
        return parse_front_proxy((await self._client.get(path)).get("data") or {})

    async def may_open(self, user: User, target: Target, subresource: str) -> str | None:
        """Ask for the right by a SubjectAccessReview; None is yes, else the reason why not."""
        return await self._may(user, target, VirtualMachine.plural, subresource, "get")

    async def may_read_ports(self, user: User, target: Target) -> str | None:
        """Ask for the right by a SubjectAccessReview; None is yes, else the reason why not."""
        return await self._may(user, target, VirtualMachine.plural, "ports", "get")

    async def may_upload(self, user: User, target: Target, verb: str) -> str | None:
        """Ask for the right by a SubjectAccessReview; None is yes, else the reason why not."""
        return await self._may(user, target, VMImage.plural, "upload", verb)

    async def _may(self, user: User, target: Target, resource: str, subresource: str, verb: str) -> str | None:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "groups": list(user.groups),
                "uid": user.uid,
                "extra": {key: list(values) for key, values in user.extra.items()},
                "resourceAttributes": {
                    "group": SUBRESOURCES_GROUP,
                    "version": VERSION,
                    "resource": resource,
                    "subresource": subresource,
                    "verb": verb,
                    "namespace": target.namespace,
                    "name": target.name,
                },
            },
        }
        status = (await self._client.create(ACCESS_REVIEWS.collection(), review)).get("status", {})
        if status.get("allowed") is True and status.get("denied") is not True:
            return None
        return str(status.get("reason") or "no rule allows it")

    async def read_image(self, target: Target) -> VMImage | None:
        """Read the image; None when there is no such object, or none that this version understands."""
        try:
            body = await self._client.get(_IMAGES.object(target.namespace, target.name))
            return VMImage.model_validate(body)
        except (NotFoundError, ValidationError):
            return None

    async def read_machine(self, target: Target) -> ObjectMeta | None:
        """Read the metadata of the machine; None when there is no such object."""
        try:
            body = await self._client.get(_MACHINES.object(target.namespace, target.name))
        except NotFoundError:
            return None
        return ObjectMeta.model_validate(body["metadata"])
