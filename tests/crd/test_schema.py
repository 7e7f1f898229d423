"""Every constraint of the schemas against a real API server: one value that is accepted, one that is refused.

The cases are made from the schemas themselves, so a constraint that is added is tested or the test fails.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kubernetes import client, config

from virtfleet_api.compute import CPU_SET_PATTERN
from virtfleet_api.crd import build_schema, kind_name
from virtfleet_api.device import (
    DEVICE_CLASS_PATTERN,
    MEDIATED_TYPE_PATTERN,
    PCI_ADDRESS_PATTERN,
    PCI_CLASS_PATTERN,
    PCI_ID_PATTERN,
)
from virtfleet_api.kinds import KINDS
from virtfleet_api.names import (
    API_VERSION,
    DNS_LABEL_PATTERN,
    DNS_SUBDOMAIN_PATTERN,
    GROUP,
    UID_PATTERN,
    VERSION,
)
from virtfleet_api.network import CIDR_PATTERN, IP_PATTERN
from virtfleet_api.pool import OVERCOMMIT_PATTERN, POOL_PATH_PATTERN, WATERMARK_PATTERN
from virtfleet_api.quantity import BitRate, Bytes, Frequency
from virtfleet_api.resource import Resource
from virtfleet_api.scheduling import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN
from virtfleet_api.security_group import SHARED_WITH_PATTERN
from virtfleet_api.virtual_switch import ADDRESS_RANGE_PATTERN, INTERFACE_PATTERN, VLANS_PATTERN
from virtfleet_dev.control_plane import ControlPlane

Schema = dict[str, Any]
Constraint = tuple[str, list[Any], list[Any]]
"""Its name, values that are accepted, values that are refused."""
Steps = tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """Texts for a pattern: some it takes, some it does not, and one of a given length."""

    good: tuple[str, ...]
    bad: tuple[str, ...]
    long: Callable[[int], str] | None
    """None when the pattern itself is shorter than any maxLength beside it."""


PATTERNS = {
    UID_PATTERN: Text(
        ("123e4567-e89b-42d3-a456-426614174000",), ("", "../etc", "123E4567-e89b-42d3-a456-426614174000"), None
    ),
    DNS_LABEL_PATTERN: Text(("a", "web-1"), ("", "-a", "a.b", "A", "a_b", "a\n", "a/b"), lambda n: "a" * n),
    DNS_SUBDOMAIN_PATTERN: Text(("a", "debian-12.images"), ("", ".a", "a..b", "A", "../a"), lambda n: "a" * n),
    r"^([1-9][0-9]{0,4})(m|h|d|w)$": Text(("90m", "14d", "8w"), ("", "0d", "14", "d", "1.5h", "-1d", "14D"), None),
    Bytes.pattern: Text(("2Gi", "1.5Gi", "1073741824"), ("", "2GB", "-1Gi", "2 Gi", "1e3", "2Gi\n"), None),
    Frequency.pattern: Text(("700MHz", "2.8GHz"), ("", "3", "3ghz", "3 GHz"), None),
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*$": Text(
        ("host-model", "Skylake-Client"), ("", "-x", "<x/>", "a b"), lambda n: "a" * n
    ),
    r"^(pc-)?(q35|i440fx)(-[0-9.]+)?$": Text(
        ("q35", "pc-q35-7.2", "pc-i440fx-7.2"), ("", "virt", "q35'"), lambda n: "q35-" + "1" * (n - 4)
    ),
    r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$": Text(
        ("52:54:00:12:34:Ff",), ("52:54:00:12:34", "52-54-00-12-34-56"), None
    ),
    r"^[ -~]*$": Text(("", "console=ttyS0 quiet"), ("a\nb", "ä"), lambda n: "x" * n),
    r"^https?://[!-~]+$": Text(
        ("http://a/b", "https://a/b?c=d"),
        ("", "file:///etc/passwd", "ftp://a", "http://a b"),
        lambda n: "http://" + "a" * (n - 7),
    ),
    r"^sha256:[0-9a-f]{64}$": Text(("sha256:" + "0" * 64,), ("0" * 64, "sha256:" + "0" * 63, "md5:" + "0" * 32), None),
    r"^[1-9][0-9]?(\.[0-9]{1,2})?$": Text(("1", "12.25"), ("0", "100", "1.", "a"), None),
    r"^[1-9](\.[0-9]{1,2})?$": Text(("1", "1.5"), ("0.5", "10", "-1"), None),
    BitRate.pattern: Text(("100Mbit", "2.5Gbit", "64kbit"), ("", "100", "100MB", "100 Mbit", "1e3kbit"), None),
    IP_PATTERN: Text(("10.1.0.7", "fd00:1::7"), ("", "1", "web-1", "10.1.0.0/24", "10.1.0.7\n"), lambda n: "1" * n),
    CIDR_PATTERN: Text(("10.1.0.7", "10.1.0.0/24", "fd00:1::/64"), ("", "all", "10.0.0.0/8 || 1"), None),
    ADDRESS_RANGE_PATTERN: Text(("10.1.0.7", "10.1.0.2-10.1.0.9"), ("", "a to b", "10.1.0.2-"), None),
    INTERFACE_PATTERN: Text(("bond0", "eth0.5"), ("", "../bond0", "a b", "-x", "a" * 16), None),
    VLANS_PATTERN: Text(("100", "100-199,300"), ("", "all", "1,", "-5", "12345"), None),
    SHARED_WITH_PATTERN: Text(("*", "shop"), ("", "team-*", "A"), lambda n: "a" * n),
    OVERCOMMIT_PATTERN: Text(("1", "2.5", "999.99"), ("0.5", "1000", "2.", "a"), None),
    WATERMARK_PATTERN: Text(("1%", "90%", "100%"), ("0%", "101%", "90", "9.5%"), None),
    POOL_PATH_PATTERN: Text(
        ("/mnt", "/srv/pools/fast-1.x_y"),
        ("", "mnt", "/", "/mnt/", "//mnt", "/mnt/../etc", "/mnt/.ssh", "/a b", "/a,b"),
        lambda n: "/" + "a" * (n - 1),
    ),
    CPU_SET_PATTERN: Text(
        ("0", "0-3,8", "0,2,4-7"),
        ("", "all", "0-", "^3", "0 1", "0,"),
        lambda n: ("1," * n)[: n - 1] + "1" if n % 2 == 0 else "1," * (n // 2) + "1",
    ),
    DEVICE_CLASS_PATTERN: Text(
        ("nvidia.com/A10", "a/b"), ("", "A10", "/A10", "nvidia.com/", "Nvidia.com/A10", "a/b/c"), None
    ),
    PCI_ADDRESS_PATTERN: Text(
        ("0000:81:00.0",), ("", "81:00.0", "0000:81:00.8", "0000:81:20.0", "0000:81:00.0/.."), None
    ),
    PCI_ID_PATTERN: Text(("10de",), ("", "10DE", "0x10de", "10d"), None),
    PCI_CLASS_PATTERN: Text(("03", "0302", "030200"), ("", "3", "030", "0x03", "03020000"), None),
    MEDIATED_TYPE_PATTERN: Text(("nvidia-63", "i915-GVTg_V5_4"), ("", "-x", "../a", "a b"), lambda n: "a" * n),
    LABEL_KEY_PATTERN: Text(
        ("zone", "example.org/zone"),
        ("", "-a", "a b", "/zone", "Example.org/zone"),
        lambda n: "a" * (n - 64) + "/" + "b" * 63,
    ),
    LABEL_VALUE_PATTERN: Text(("", "east"), ("-a", "a b", "a/b"), lambda n: "a" * n),
}

ADDRESSES = {IP_PATTERN, CIDR_PATTERN, ADDRESS_RANGE_PATTERN}

WRONG_TYPE = {"string": 7, "integer": "seven", "boolean": "yes", "object": "none", "array": {"a": "b"}}


@dataclass(frozen=True)
class Case:
    kind: type[Resource]
    part: str
    steps: Steps
    constraint: str
    value: Any
    accepted: bool

    @property
    def name(self) -> str:
        verdict = "accepted" if self.accepted else "refused"
        return f"{self.kind.plural}-{'.'.join((self.part, *self.steps))}-{self.constraint}-{verdict}"


def minimal(schema: Schema) -> Any:
    """Return the smallest value that the schema takes."""
    if schema["type"] == "object":
        return {name: minimal(schema["properties"][name]) for name in schema.get("required", ())}
    if schema["type"] == "string":
        return minimal_text(schema)
    if schema["type"] == "array":
        return items(schema, schema.get("minItems", 0))
    return {"integer": schema.get("minimum", 0), "boolean": True}[schema["type"]]


def minimal_text(schema: Schema) -> str:
    if "enum" in schema:
        return str(schema["enum"][0])
    if schema.get("format") == "date-time":
        return "2026-01-01T00:00:00Z"
    return PATTERNS[schema["pattern"]].good[0] if "pattern" in schema else "x"


def place(schema: Schema, steps: Steps, value: Any) -> Any:
    """Return the smallest value of the schema that has `value` at the end of the steps."""
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if step == "[]":
        return [place(schema["items"], rest, value)]
    if step == "{}":
        return {"key": place(schema["additionalProperties"], rest, value)}
    return {**minimal(schema), step: place(schema["properties"][step], rest, value)}


def walk(schema: Schema, steps: Steps = ()) -> Iterator[tuple[Steps, Schema]]:
    yield steps, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, (*steps, name))
    for word, step in (("items", "[]"), ("additionalProperties", "{}")):
        if word in schema:
            yield from walk(schema[word], (*steps, step))


def constraints(schema: Schema, *, of_status: bool) -> Iterator[Constraint]:
    yield "type", [minimal(schema)], [WRONG_TYPE[schema["type"]]]
    if schema["type"] == "integer":
        yield from of_numbers(schema)
    if schema["type"] == "string":
        yield from of_texts(schema)
    if "maxItems" in schema:
        yield "maxItems", [items(schema, schema["maxItems"])], [items(schema, schema["maxItems"] + 1)]
    if "minItems" in schema:
        yield "minItems", [items(schema, schema["minItems"])], [items(schema, schema["minItems"] - 1)]
    if "maxProperties" in schema:
        value = minimal(schema["additionalProperties"])
        many = {f"k{number}": value for number in range(schema["maxProperties"] + 1)}
        yield "maxProperties", [dict(list(many.items())[1:])], [many]
    if schema.get("required"):
        whole = minimal(schema)
        yield "required", [whole], [{k: v for k, v in whole.items() if k != name} for name in schema["required"]]
    if schema.get("x-kubernetes-list-type") == "map" and not of_status:  # 1.20 does not ask for it in a status
        yield "unique", [items(schema, 2)], [items(schema, 1) * 2]


def of_numbers(schema: Schema) -> Iterator[Constraint]:
    if "minimum" in schema:
        yield "minimum", [schema["minimum"]], [schema["minimum"] - 1]
    if "maximum" in schema:
        yield "maximum", [schema["maximum"]], [schema["maximum"] + 1]


def of_texts(schema: Schema) -> Iterator[Constraint]:
    text = PATTERNS[schema["pattern"]] if "pattern" in schema else Text((), (), lambda n: "x" * n)
    if "enum" in schema:
        yield "enum", schema["enum"], ["NoSuchValue", schema["enum"][0].swapcase()]
    elif "format" in schema:
        yield "format", ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00"], ["yesterday", "2026-01-01"]
    elif "pattern" in schema:
        yield "pattern", list(text.good), list(text.bad)
    else:
        yield "empty", [""], []
    if "maxLength" in schema and text.long:
        yield "maxLength", [text.long(schema["maxLength"])], [text.long(schema["maxLength"] + 1)]


def distinct(schema: Schema, index: int) -> Any:
    """Return a value that the schema takes, another one for each index."""
    if schema["type"] != "string":
        return minimal(schema)
    return f"10.0.{index >> 8}.{index & 255}" if schema.get("pattern") in ADDRESSES else f"n{index}"


def items(schema: Schema, count: int) -> list[Any]:
    if "x-kubernetes-list-map-keys" not in schema:
        return [distinct(schema["items"], index) for index in range(count)]
    key = schema["x-kubernetes-list-map-keys"][0]
    number = schema["items"]["properties"][key]["type"] == "integer"
    return [{**minimal(schema["items"]), key: index if number else f"n{index}"} for index in range(count)]


CASES = [
    Case(kind, part, steps, constraint, value, accepted)
    for kind in KINDS
    for part in ("spec", "status")
    if part in build_schema(kind)["properties"]
    for steps, schema in walk(build_schema(kind)["properties"][part])
    for constraint, good, bad in constraints(schema, of_status=part == "status")
    for accepted, values in ((True, good), (False, bad))
    for value in values
]

KNOWN = {
    *("type", "enum", "format", "minimum", "maximum", "pattern", "maxLength", "maxItems", "required"),
    *("minItems", "maxProperties"),
    *("description", "default", "properties", "additionalProperties", "items"),
    "x-kubernetes-preserve-unknown-fields",
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"),
}


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(config.new_client_from_config(str(control_plane.kubeconfig)))


@pytest.fixture(scope="module")
def targets(api: client.CustomObjectsApi) -> Iterator[dict[str, dict[str, Any]]]:
    """One object of each kind, whose status is written."""
    made = {kind.plural: send(api, kind, {"spec": minimal(spec_of(kind))}, dry=False) for kind in KINDS}
    yield made
    for kind in KINDS:
        arguments = (GROUP, VERSION, "default", kind.plural, "schema-test")
        if kind.namespaced:
            api.delete_namespaced_custom_object(*arguments)
        else:
            api.delete_cluster_custom_object(GROUP, VERSION, kind.plural, "schema-test")


def spec_of(kind: type[Resource]) -> Schema:
    schema: Schema = build_schema(kind)["properties"]["spec"]
    return schema


def send(
    api: client.CustomObjectsApi,
    kind: type[Resource],
    parts: dict[str, Any],
    *,
    dry: bool = True,
    name: str = "schema-test",
) -> dict[str, Any]:
    """Create an object, by default without keeping it."""
    body = {"apiVersion": API_VERSION, "kind": kind_name(kind), "metadata": {"name": name}, **parts}
    more = {"dry_run": "All"} if dry else {}
    if kind.namespaced:
        answer = api.create_namespaced_custom_object(GROUP, VERSION, "default", kind.plural, body, **more)
    else:
        answer = api.create_cluster_custom_object(GROUP, VERSION, kind.plural, body, **more)
    found: dict[str, Any] = answer
    return found


def send_status(api: client.CustomObjectsApi, kind: type[Resource], old: dict[str, Any], status: Any) -> None:
    body = {**old, "status": status}
    if kind.namespaced:
        where = (GROUP, VERSION, "default", kind.plural, "schema-test")
        api.replace_namespaced_custom_object_status(*where, body, dry_run="All")
    else:
        api.replace_cluster_custom_object_status(GROUP, VERSION, kind.plural, "schema-test", body, dry_run="All")


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{number}-{case.name}") for number, case in enumerate(CASES)])
def test_constraint(api: client.CustomObjectsApi, targets: dict[str, dict[str, Any]], case: Case) -> None:
    value = place(build_schema(case.kind)["properties"][case.part], case.steps, case.value)

    def act() -> None:
        if case.part == "spec":
            send(api, case.kind, {"spec": value}, name="another")
        else:
            send_status(api, case.kind, targets[case.kind.plural], value)

    if case.accepted:
        act()
        return
    with pytest.raises(client.ApiException) as refused:
        act()
    assert refused.value.status == 422
    named = next((step for step in reversed((case.part, *case.steps)) if step not in {"[]", "{}"}), "")
    assert named in json.loads(refused.value.body)["message"]


def test_every_keyword_has_cases() -> None:
    for kind in KINDS:
        for part in sorted({"spec", "status"} & build_schema(kind)["properties"].keys()):
            for steps, schema in walk(build_schema(kind)["properties"][part]):
                assert schema.keys() <= KNOWN, steps


DEFAULTS = [
    pytest.param(kind, steps, schema["default"], id=f"{kind.plural}-{'.'.join(steps)}")
    for kind in KINDS
    for steps, schema in walk(spec_of(kind), ("spec",))
    if "default" in schema
]


@pytest.mark.parametrize(("kind", "steps", "default"), DEFAULTS)
def test_defaults_appear(api: client.CustomObjectsApi, kind: type[Resource], steps: Steps, default: object) -> None:
    schema = build_schema(kind)
    parent = schema
    for step in steps[:-1]:
        parent = parent["items"] if step == "[]" else parent["properties"][step]
    stored: Any = send(api, kind, {"spec": {}, **place(schema, steps[:-1], minimal(parent))}, name="another")
    for step in steps:
        stored = stored[0] if step == "[]" else stored[step]
    assert stored == default


@pytest.mark.parametrize("kind", KINDS)
def test_names_have_a_greatest_length(api: client.CustomObjectsApi, kind: type[Resource]) -> None:
    spec = {"spec": minimal(spec_of(kind))}
    longest = "n" * kind.name_max_length
    assert send(api, kind, spec, name=longest)["metadata"]["name"] == longest
    with pytest.raises(client.ApiException) as refused:
        send(api, kind, spec, name=longest + "n")
    assert refused.value.status == 422


@pytest.mark.parametrize("kind", KINDS)
def test_status_is_a_subresource(api: client.CustomObjectsApi, kind: type[Resource]) -> None:
    status = {"observedGeneration": 7}
    made = send(api, kind, {"spec": minimal(spec_of(kind)), "status": status}, name="another")
    # What the schema says of an object that the operator has not looked at yet; a VMAddress has no status.
    assert made.get("status") == ({"observedGeneration": 0} if "status" in kind.model_fields else None)
