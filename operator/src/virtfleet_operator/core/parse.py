"""From an object's JSON to its model, or to sentences that say what to write instead.

Only the spec is strict: metadata has fields that virtfleet does not read, and a status that does not parse (written by
another version) is as good as none, because it is written anew anyway.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from virtfleet_api.resource import ObjectMeta, Resource
from virtfleet_operator.core.remedy import sentence
from virtfleet_operator.core.verdict import Invalid

R = TypeVar("R", bound=Resource)


def parse(kind: type[R], body: Mapping[str, Any]) -> R | Invalid:
    """Parse an object as the API server stores it."""
    spec_model = model_of(kind, "spec")
    try:
        spec = spec_model.model_validate_json(_encode(_spec_of(body)), strict=True)
    except ValidationError as error:
        return Invalid(tuple(dict.fromkeys(sentence(spec_model, e) for e in error.errors(include_url=False))))
    parts = {"metadata": parse_metadata(body), "spec": spec}
    if "status" in kind.model_fields:
        parts["status"] = parse_status(kind, body)
    return kind.model_validate(parts)


def parse_metadata(body: Mapping[str, Any]) -> ObjectMeta:
    """Parse the metadata, which the API server has checked."""
    metadata = body.get("metadata") or {}
    return ObjectMeta.model_validate({"name": ""} | {k: v for k, v in dict(metadata).items() if v is not None})


def parse_status(kind: type[Resource], body: Mapping[str, Any]) -> Any:
    """Parse the status; one that this version does not understand counts as empty."""
    status_model = model_of(kind, "status")
    try:
        return status_model.model_validate_json(_encode(body.get("status") or {}))
    except ValidationError:
        return status_model()


def model_of(kind: type[Resource], part: str) -> type[BaseModel]:
    """Return the model of a kind's `spec` or `status`."""
    model = kind.model_fields[part].annotation
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"{kind.__name__}.{part} is not a model")
    return model


def _spec_of(body: Mapping[str, Any]) -> object:
    """Return the spec; an absent one is empty, so that what it lacks is named."""
    spec = body.get("spec")
    return {} if spec is None else spec


def _encode(value: object) -> bytes:
    """Return JSON; a lone surrogate becomes "?", as no UTF-8 text can hold it."""
    return json.dumps(value, ensure_ascii=False, default=dict).encode("utf-8", "replace")
