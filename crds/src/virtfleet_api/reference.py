"""The reference pages of the kinds, made from the same schemas as the CRDs. Pure: schema in, Markdown out."""

from collections.abc import Iterator
from typing import Final

from virtfleet_api.crd import Schema, build_schema, kind_name
from virtfleet_api.names import API_VERSION
from virtfleet_api.resource import Resource

_LIMITS: Final = {
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} entries",
    "pattern": "`{}`",
}


def render_reference(kind: type[Resource]) -> str:
    """Render the reference page of a kind."""
    schema = build_schema(kind)
    names = ", ".join(f"`{name}`" for name in (kind.plural, *kind.short_names))
    scope = "lives in a namespace" if kind.namespaced else "is cluster-scoped"
    properties = schema["properties"]
    lines = [
        f"# {kind_name(kind)}",
        "",
        f"{schema['description']} `{API_VERSION}`, {scope}; kubectl knows it as {names}.",
        f"Its name has at most {properties['metadata']['properties']['name']['maxLength']} characters.",
        "",
        "This page is generated from the models; `kubectl explain` shows the same words.",
        "",
    ]
    for part in sorted({"spec", "status"} & properties.keys()):
        lines += [f"## {part}", "", properties[part]["description"], "", *_table(part, properties[part]), ""]
    return "\n".join(lines)


def _table(part: str, schema: Schema) -> list[str]:
    head = ["| field | type | default | limits | |", "|---|---|---|---|---|"]
    return head + [_row(path, child, required=required) for path, child, required in _fields(part, schema)]


def _fields(path: str, schema: Schema) -> Iterator[tuple[str, Schema, bool]]:
    """Yield (path, schema, whether it must be given) of every field below, in the order of the models."""
    for name, child in schema.get("properties", {}).items():
        below = f"{path}.{name}"
        yield below, child, name in schema.get("required", ())
        if "items" in child:
            yield from _fields(f"{below}[]", child["items"])
        else:
            yield from _fields(below, child)


def _row(path: str, schema: Schema, *, required: bool) -> str:
    default = f"`{_literal(schema['default'])}`" if "default" in schema else ""
    limits = "; ".join([*(["required"] if required else []), *_limits(schema)])
    cells = (f"`{path}`", _type(schema), default, limits, schema.get("description", ""))
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _literal(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(schema: Schema) -> str:
    if "items" in schema:
        keys = schema.get("x-kubernetes-list-map-keys")
        return f"list of {_type(schema['items'])}" + (f", by `{keys[0]}`" if keys else "")
    if "additionalProperties" in schema:
        return f"map to {_type(schema['additionalProperties'])}"
    return str(schema.get("format", schema["type"]))


def _limits(schema: Schema) -> list[str]:
    found = [", ".join(f"`{value}`" for value in schema["enum"])] if "enum" in schema else []
    return found + [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
