"""The kinds as CustomResourceDefinitions with structural schemas, made from the models so that the two cannot disagree.

Pure: model in, dict out. Uses only what Kubernetes 1.20 and every newer server understand: no CEL, and none of anyOf,
oneOf, nullable and int-or-string, which make 1.20 treat every list of the kind as atomic under server-side apply.
A JSON schema keyword that this module does not know is an error, so that no constraint is lost on the way.
"""

from typing import Any, Final

from virtfleet_api.names import GROUP, VERSION
from virtfleet_api.resource import Resource

Schema = dict[str, Any]

_KEPT: Final = (
    "description",
    "type",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
)
"""Keywords that pass unchanged, in the order they are written."""

_HANDLED: Final = frozenset({"title", "default", "properties", "additionalProperties", "items"})
_LIST_KEYS: Final = ("name", "type", "cell")
"""Fields by which the items of a list are told apart, when items must have them."""


def crd_name(kind: type[Resource]) -> str:
    """Return the name of the definition, such as "vmimages.virtfleet.io"."""
    return f"{kind.plural}.{GROUP}"


def kind_name(kind: type[Resource]) -> str:
    """Return the kind's name, such as "VMImage"."""
    return str(kind.model_fields["kind"].default)


def build_crd(kind: type[Resource]) -> Schema:
    """Build the CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": crd_name(kind), "labels": {"app.kubernetes.io/part-of": "virtfleet"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": _names(kind),
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}} if "status" in kind.model_fields else {},
                    "additionalPrinterColumns": _columns(kind),
                    "schema": {"openAPIV3Schema": build_schema(kind)},
                }
            ],
        },
    }


def build_schema(kind: type[Resource]) -> Schema:
    """Build the structural schema of a kind."""
    whole = kind.model_json_schema(by_alias=True, mode="validation")
    defs, properties = whole["$defs"], whole["properties"]
    parts = {part: _structural(properties[part], defs, part) for part in ("spec", "status") if part in properties}
    if "status" in parts:
        # An object that nobody has looked at yet is told from one that has nothing to say: kstatus needs that.
        parts["status"]["default"] = {"observedGeneration": 0}
    return {
        "description": whole["description"],
        "type": "object",
        "required": [name for name in ("spec",) if name in whole["required"]],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
            "kind": {"type": "string", "description": "Kind of this object."},
            "metadata": _metadata(kind),
            **parts,
        },
    }


def _names(kind: type[Resource]) -> Schema:
    return {
        "kind": kind_name(kind),
        "listKind": f"{kind_name(kind)}List",
        "plural": kind.plural,
        "singular": kind_name(kind).lower(),
        "shortNames": list(kind.short_names),
        "categories": list(kind.categories),
    }


def _columns(kind: type[Resource]) -> list[object]:
    return [{"name": c.name, "type": c.type, **c.model_dump(exclude_defaults=True)} for c in kind.columns]


def _metadata(kind: type[Resource]) -> Schema:
    """Limit what Kubernetes lets a schema limit of the metadata: the name."""
    return {"type": "object", "properties": {"name": {"type": "string", "maxLength": kind.name_max_length}}}


def _structural(node: Schema, defs: Schema, path: str) -> Schema:
    """Return the structural form of a JSON schema; ValueError names a keyword that has none."""
    node = _flatten(node, defs, path)
    unknown = node.keys() - set(_KEPT) - _HANDLED
    if unknown:
        raise ValueError(f"{path}: {sorted(unknown)} cannot be said in a structural schema of Kubernetes 1.20")
    result: Schema = {key: node[key] for key in _KEPT if key in node}
    default = node.get("default")
    # Servers of 1.20 that were built with a newer Go read "" as null and refuse it; for a text, absent says the same.
    if isinstance(default, str | int | float) and default != "" and not path.startswith("status"):
        result["default"] = default
    if "properties" in node:
        result["properties"] = {
            name: _structural(child, defs, f"{path}.{name}") for name, child in node["properties"].items()
        }
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(node["additionalProperties"], defs, f"{path}.*")
    if "items" in node:
        result |= _list(_structural(node["items"], defs, f"{path}[]"), path)
    return result


def _flatten(node: Schema, defs: Schema, path: str) -> Schema:
    """Put a referenced definition in its place, and say "optional" by absence instead of by null."""
    while True:
        rest = {key: value for key, value in node.items() if key not in {"$ref", "anyOf"}}
        if "$ref" in node:
            node = defs[node["$ref"].rsplit("/", 1)[1]] | rest
        elif "anyOf" in node:
            options = [option for option in node["anyOf"] if option != {"type": "null"}]
            if len(options) != 1:
                raise ValueError(f"{path}: a field has one type, this one has {len(options)}")
            node = options[0] | rest
        else:
            return node


def _list(items: Schema, path: str) -> Schema:
    """Say how two writers of a list are merged: items with a key one by one, plain values as a set.

    Plain values in status are atomic: a guest that reports an address twice must not make the status unwritable.
    """
    key = next((key for key in _LIST_KEYS if key in items.get("required", ())), None)
    if key is not None:
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key], "items": items}
    plain = items["type"] != "object" and not path.startswith("status")
    return {"x-kubernetes-list-type": "set" if plain else "atomic", "items": items}
