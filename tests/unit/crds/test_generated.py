"""The generator against small models, and rules that every generated schema keeps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.crd import build_crd, build_schema
from virtfleet_api.generate import build_files, check_files, main, write_files
from virtfleet_api.kinds import KINDS
from virtfleet_api.resource import Resource

ROOT = Path(__file__).parents[3]

FORBIDDEN = {"$ref", "anyOf", "oneOf", "allOf", "not", "nullable", "x-kubernetes-int-or-string", "title"}


def walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from walk(schema[word], f"{path}[]")


NODES = [
    pytest.param(path, schema, id=f"{kind.plural}-{path}")
    for kind in KINDS
    for part in ("spec", "status")
    if part in build_schema(kind)["properties"]
    for path, schema in walk(build_schema(kind)["properties"][part], part)
]


@pytest.mark.parametrize(("path", "schema"), NODES)
def test_every_node_is_structural(path: str, schema: dict[str, Any]) -> None:
    assert schema["type"] in {"object", "array", "string", "integer", "boolean"}
    assert not schema.keys() & FORBIDDEN
    assert not ("properties" in schema and "additionalProperties" in schema)
    if schema["type"] == "array":
        assert "x-kubernetes-list-type" in schema
    assert schema.get("default") != "", "some servers of 1.20 take it for null"
    if schema["type"] == "string" and path.startswith("spec"):
        assert schema.keys() & {"maxLength", "enum", "format"}, "text from users has a greatest length"
    if schema["type"] == "array" and path.startswith("spec"):
        assert "maxItems" in schema


@pytest.mark.parametrize(("path", "schema"), [n for n in NODES if not str(n.values[0]).endswith("[]")])
def test_every_field_is_described(path: str, schema: dict[str, Any]) -> None:
    assert schema["description"].strip().endswith((".", "`).")), path


def test_lists_of_named_items_merge_by_name_and_conditions_by_type() -> None:
    schema = build_schema(KINDS[0])["properties"]
    assert schema["spec"]["properties"]["disks"]["x-kubernetes-list-map-keys"] == ["name"]
    assert schema["status"]["properties"]["conditions"]["x-kubernetes-list-map-keys"] == ["type"]


def test_addresses_a_guest_reports_twice_do_not_make_the_status_unwritable() -> None:
    interfaces = build_schema(KINDS[0])["properties"]["status"]["properties"]["interfaces"]
    assert interfaces["items"]["properties"]["ipAddresses"]["x-kubernetes-list-type"] == "atomic"


class Part(Model):
    tags: Annotated[tuple[str, ...], Field(description="Tags.")] = ()
    size: Annotated[int | None, Field(ge=1, description="Size.")] = None
    odd: Annotated[int | str, Field(description="Two types.")] = 0


class Strange(Resource):
    """A kind with a field of two types."""

    plural: ClassVar[str] = "stranges"
    kind: str = "Strange"
    spec: Part
    status: Part = Part()


def test_a_field_of_two_types_is_an_error_of_the_model() -> None:
    with pytest.raises(ValueError, match=r"spec\.odd: a field has one type, this one has 2"):
        build_schema(Strange)


class Limited(Model):
    """A limit that OpenAPI v3 says otherwise than JSON schema."""

    size: Annotated[int, Field(gt=1, description="Size.")]
    tags: Annotated[tuple[str, ...], Field(description="Tags.")] = ()


class Exclusive(Resource):
    """A kind with an exclusive limit."""

    plural: ClassVar[str] = "exclusives"
    kind: str = "Exclusive"
    spec: Limited
    status: Limited


def test_a_constraint_the_schema_cannot_say_is_an_error_instead_of_lost() -> None:
    with pytest.raises(ValueError, match=r"spec\.size: \['exclusiveMinimum'\] cannot be said"):
        build_schema(Exclusive)


class Tagged(Model):
    tags: Annotated[tuple[str, ...], Field(description="Tags.")] = ()


class WithTags(Resource):
    """A kind with plain lists."""

    plural: ClassVar[str] = "withtags"
    kind: str = "WithTags"
    spec: Tagged = Tagged()
    status: Tagged = Tagged()


def test_plain_lists_are_sets_for_users_and_atomic_in_status() -> None:
    schema = build_schema(WithTags)
    assert schema["required"] == []
    assert schema["properties"]["spec"]["properties"]["tags"]["x-kubernetes-list-type"] == "set"
    assert schema["properties"]["status"]["properties"]["tags"]["x-kubernetes-list-type"] == "atomic"


def test_committed_files_are_what_the_models_say() -> None:
    assert check_files(ROOT, build_files()) == []


def test_crds_have_no_subresource_but_status() -> None:
    for kind in KINDS:
        expected = {"status": {}} if "status" in kind.model_fields else {}  # a VMAddress only says who has what
        assert build_crd(kind)["spec"]["versions"][0]["subresources"] == expected


def test_check_names_the_file_and_shows_the_difference(tmp_path: Path) -> None:
    files = {Path("crds/virtfleet.io_vms.yaml"): "a: 1\nb: 2\n"}
    write_files(tmp_path, files)
    assert check_files(tmp_path, files) == []
    (tmp_path / "crds/virtfleet.io_vms.yaml").write_text("a: 1\nb: 3\n")
    (tmp_path / "crds/virtfleet.io_olds.yaml").write_text("")
    changed, stray = check_files(tmp_path, files)
    assert changed.startswith("crds/virtfleet.io_vms.yaml is not what the models say")
    assert "-b: 3" in changed
    assert "+b: 2" in changed
    assert stray.startswith("crds/virtfleet.io_olds.yaml belongs to no kind")
    write_files(tmp_path, files)
    assert check_files(tmp_path, files) == []


def test_the_command_writes_and_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crds").mkdir()
    monkeypatch.setattr("sys.argv", ["virtfleet-crds", "check", "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "run `make generate`" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["virtfleet-crds", "write", "--root", str(tmp_path)])
    main()
    monkeypatch.setattr("sys.argv", ["virtfleet-crds", "check", "--root", str(tmp_path)])
    main()
    assert capsys.readouterr().out == ""


def test_the_command_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["virtfleet-crds", "check", "--root", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert f"{tmp_path} has no folder crds: name the source tree with --root" in capsys.readouterr().err
