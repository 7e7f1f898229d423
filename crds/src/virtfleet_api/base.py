"""The two bases of every model: what users write (`Resource` parts) and what processes exchange (`Document`)."""

from typing import Final

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

ATOMIC: Final[JsonDict] = {"x-kubernetes-map-type": "atomic"}
"""For a value that only means something as a whole: server-side apply never mixes two writers' parts of it."""


class Model(BaseModel):
    """A frozen value whose JSON names are camelCase, as everywhere in Kubernetes.

    Unknown fields are refused: a field that this version does not know must never be silently ignored.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
    )

    def to_json_dict(self) -> dict[str, object]:
        """Return the JSON form that is written to Kubernetes: camelCase, without absent fields."""
        return self.model_dump(mode="json", exclude_none=True)


class Document(Model):
    """A message between operator and daemon.

    Unknown fields are ignored, so that either side may be upgraded first.
    """

    model_config = ConfigDict(extra="ignore")
