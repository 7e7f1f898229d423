"""What all kinds share: object metadata and the envelope of a custom resource."""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from virtfleet_api.base import Model
from virtfleet_api.names import API_VERSION


class ObjectMeta(Model):
    """The part of metav1.ObjectMeta that virtfleet reads."""

    model_config = ConfigDict(extra="ignore")

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: Annotated[dict[str, str], Field(default_factory=dict)]
    annotations: Annotated[dict[str, str], Field(default_factory=dict)]
    finalizers: tuple[str, ...] = ()
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class PrinterColumn(Model):
    """A column of `kubectl get`."""

    name: str
    type: str = "string"
    json_path: Annotated[str, Field(alias="jsonPath")]
    priority: int = 0
    description: str = ""


class Resource(Model):
    """A custom resource of virtfleet. Subclasses add `spec` and `status` and say how kubectl shows them."""

    plural: ClassVar[str]
    short_names: ClassVar[tuple[str, ...]] = ()
    categories: ClassVar[tuple[str, ...]] = ("virtfleet",)
    namespaced: ClassVar[bool] = True
    name_max_length: ClassVar[int] = 253
    columns: ClassVar[tuple[PrinterColumn, ...]] = ()

    api_version: str = API_VERSION
    kind: str
    metadata: ObjectMeta

    @property
    def key(self) -> tuple[str, str]:
        """Return (namespace, name); the namespace of a cluster-scoped object is empty."""
        return self.metadata.namespace, self.metadata.name
