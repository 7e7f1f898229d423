"""What is said of changes and deletions, and that a bad spec never stands in the way of metadata."""

import typing
from collections.abc import Callable
from datetime import datetime
from typing import Any

import kopf
import pytest
from pydantic import BaseModel

from virtfleet_api.kinds import KINDS
from virtfleet_api.names import FINALIZER, NODE_LABEL
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_image import VMImage
from virtfleet_operator.core.admission import Review, review_deletion, review_write
from virtfleet_operator.core.parse import model_of, parse, parse_metadata, parse_status
from virtfleet_operator.core.remedy import PATTERN_REMEDIES
from virtfleet_operator.core.validate import check
from virtfleet_operator.core.verdict import Invalid, join_problems, plain, quote
from virtfleet_operator.webhooks import register

UID = "11111111-2222-3333-4444-555555555555"


def vm(spec: Any = None, *, status: Any = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "virtfleet.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": "web-1", "namespace": "shop", "uid": UID, "generation": 1} | metadata,
        "spec": {"memory": {"guest": "1Gi"}} if spec is None else spec,
        "status": status or {},
    }


def image(spec: Any = None, *, status: Any = None) -> dict[str, Any]:
    source = {"http": {"url": "https://images.example.org/debian-12.qcow2"}}
    metadata = {"name": "debian-12", "namespace": "shop", "uid": UID}
    return {"kind": "VMImage", "metadata": metadata, "spec": {"source": source} | (spec or {}), "status": status or {}}


def disks(**root: Any) -> dict[str, Any]:
    disk = {"name": "root", "size": "4Gi", "source": {"image": {"name": "debian-12"}}}
    return {"memory": {"guest": "1Gi"}, "disks": [disk | root]}


def refusal(review: Review) -> str | None:
    return review.refusal.message if review.refusal else None


EXISTING = {"disks": [{"name": "root", "pool": "default", "capacity": "4Gi", "target": "vda"}]}
OTHER = "add a new disk under another name"
BY_HAND = "is set by virtfleet alone: remove it, and choose nodes with spec.nodeSelector"


@pytest.mark.parametrize(
    ("new", "status", "says"),
    [
        (disks(cache="writeback"), EXISTING, None),
        (disks(size="8Gi"), EXISTING, None),
        (disks(size=None), EXISTING, None),
        (disks(pool="fast"), {}, None),
        (disks(source={"blank": {}}), {}, None),
        (disks(name="other", pool="fast"), EXISTING, None),
        (disks(source={"image": {"name": "debian-12"}, "clone": "Full"}), EXISTING, None),
        (
            disks(pool="fast"),
            EXISTING,
            "spec.disks[0].pool: cannot change from 'default' to 'fast' once the disk exists: write \"default\", or "
            + OTHER,
        ),
        (
            disks(size="2Gi"),
            EXISTING,
            f"spec.disks[0].size: '2Gi' would shrink the disk, which loses data: write at least \"4Gi\", or {OTHER}",
        ),
        (
            disks(source={"image": {"name": "debian-13"}}),
            EXISTING,
            f"spec.disks[0].source: cannot change once the disk exists: write what it was, or {OTHER}",
        ),
    ],
)
def test_a_disk_that_exists_is_not_made_anew(
    objects: Any, now: datetime, new: dict[str, Any], status: dict[str, Any], says: str | None
) -> None:
    review = review_write(vm(new, status=status), vm(disks(), status=status), objects, now)
    assert refusal(review) == says


def test_a_disk_that_needs_no_image_never_needs_one_again(objects: Any, now: datetime) -> None:
    full = disks(source={"image": {"name": "debian-12"}, "clone": "Full"})
    review = review_write(vm(disks(), status=EXISTING), vm(full, status=EXISTING), objects, now)
    assert refusal(review) == f"spec.disks[0].source: cannot change once the disk exists: write what it was, or {OTHER}"


@pytest.mark.parametrize("change", [{"pool": "fast"}, {"size": "2Gi"}])
def test_the_same_is_said_without_the_old_object(objects: Any, now: datetime, change: dict[str, str]) -> None:
    new = vm(disks(**change), status=EXISTING)
    parsed = parse(VirtualMachine, new)
    assert isinstance(parsed, VirtualMachine)
    found = check(parsed, now)
    assert found is not None
    assert found.message == refusal(review_write(new, vm(disks(), status=EXISTING), objects, now))


BOUND = {"labels": {NODE_LABEL: "node-a"}, "finalizers": [FINALIZER]}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ({}, BOUND, None),
        (BOUND, BOUND, None),
        (BOUND, {"finalizers": [FINALIZER]}, None),
        (BOUND, BOUND | {"labels": {NODE_LABEL: "node-a", "app": "web"}}, None),
        (BOUND | {"deletionTimestamp": "2026-11-23T10:00:00Z"}, {"deletionTimestamp": "2026-11-23T10:00:00Z"}, None),
        (
            {},
            {"labels": {NODE_LABEL: "node-a"}},
            f"metadata.labels[{NODE_LABEL}]: {BY_HAND}",
        ),
        (
            BOUND,
            BOUND | {"labels": {NODE_LABEL: "node-b"}},
            f"metadata.labels[{NODE_LABEL}]: cannot change, as the machine is on node 'node-a': write \"node-a\"",
        ),
        (
            BOUND,
            {"labels": {NODE_LABEL: "node-a"}},
            f"metadata.finalizers: must hold {FINALIZER} while the machine is on a node: delete the machine",
        ),
    ],
)
def test_a_binding_is_the_operators(
    objects: Any, now: datetime, old: dict[str, Any], new: dict[str, Any], says: str | None
) -> None:
    assert refusal(review_write(vm(**new), vm(**old), objects, now)) == says


def test_a_bad_spec_does_not_keep_metadata_from_changing(objects: Any, now: datetime) -> None:
    bad = {"future": True}
    assert refusal(review_write(vm(bad, labels={"a": "b"}), vm(bad), objects, now)) is None
    assert refusal(review_write(vm(bad), None, objects, now)) is not None


def test_a_bad_spec_may_be_replaced_by_a_good_one(objects: Any, now: datetime) -> None:
    assert refusal(review_write(vm(), vm({"future": True}), objects, now)) is None


@pytest.mark.parametrize("phase", ["Ready", "Importing"])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"source": {"http": {"url": "https://images.example.org/other.qcow2"}}}, "source"),
        ({"type": "Kernel"}, "type"),
        ({"pool": "fast"}, "pool"),
    ],
)
def test_an_imported_image_stays_what_it_is(
    objects: Any, now: datetime, phase: str, change: dict[str, Any], field: str
) -> None:
    old = image(status={"phase": phase})
    assert refusal(review_write(image(change, status={"phase": phase}), old, objects, now)) == (
        f"spec.{field}: cannot change once the image is imported: "
        "write what it was, or make another VMImage for the new one"
    )
    assert refusal(review_write(image({"shared": True}, status={"phase": phase}), old, objects, now)) is None
    reached = {"source": {"http": {**old["spec"]["source"]["http"], "secretRef": {"name": "login"}}}}
    assert refusal(review_write(image(reached, status={"phase": phase}), old, objects, now)) is None


@pytest.mark.parametrize("phase", [None, "Pending", "Failed"])
def test_an_image_that_never_came_may_be_corrected(objects: Any, now: datetime, phase: str | None) -> None:
    status = {"phase": phase} if phase else {}
    change = {"source": {"http": {"url": "https://images.example.org/other.qcow2"}}}
    assert refusal(review_write(image(change, status=status), image(status=status), objects, now)) is None


@pytest.mark.parametrize(
    ("users", "says"),
    [
        ((), None),
        (("shop/a",), "machine shop/a"),
        (("shop/b", "shop/a"), "machines shop/a, shop/b"),
        (("c/c", "b/b", "a/a"), "machines a/a, b/b, c/c"),
        (("d/d", "c/c", "b/b", "a/a"), "machines a/a, b/b, c/c and 1 more"),
    ],
)
def test_who_keeps_an_image_or_a_node_is_named(objects: Any, users: tuple[str, ...], says: str | None) -> None:
    objects.users = objects.machines = users
    of_image = refusal(review_deletion(image(), objects))
    of_node = refusal(review_deletion({"kind": "VMNode", "metadata": {"name": "node-a"}}, objects))
    if says is None:
        assert of_image is of_node is None
    else:
        assert of_image == (
            f"VMImage debian-12 is used by {says}: delete these machines first, or take the image out of their spec"
        )
        assert of_node == f"VMNode node-a runs {says}: delete or move these machines first"
    assert refusal(review_deletion(vm(), objects)) is None


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("https://example.org/a", True),
        ("http://images.virtfleet.test/guest.qcow2", True),
        ("http://192.0.2.7:8080/a?b=c", True),
        ("http://[2001:db8::7]/a", True),
        ("http://10.0.0.1/a", True),
        ("http://my_host.example.org/a", True),
        ("http://example.org./a", True),
        ("http://[::1]/a", False),
        ("http://[fe80::1]/a", False),
        ("http://0.0.0.0/a", False),
        ("http://224.0.0.1/a", False),
        ("http://LOCALHOST./a", False),
        ("http://a.localhost/a", False),
        ("http://0x7f.1/a", False),
        ("http://127.1/a", False),
        ("http://017700000001/a", False),
        ("http://-a.example.org/a", False),
        ("http://example..org/a", False),
        ("http://[::1/a", False),
        ("http://user@example.org/a", False),
        ("http://:8080/a", False),
    ],
)
def test_addresses_of_images(objects: Any, now: datetime, address: str, good: bool) -> None:  # noqa: FBT001  a column
    review = review_write(image({"source": {"http": {"url": address}}}), None, objects, now)
    assert (refusal(review) is None) == good
    initrd = {"type": "Kernel", "source": {"http": {"url": "http://example.org/a"}, "initrd": {"url": address}}}
    assert (refusal(review_write(image(initrd), None, objects, now)) is None) == good


@pytest.mark.parametrize(
    ("reserved", "capacity", "good"),
    [("1Gi", {"cpus": 1, "memory": "2Gi"}, True), ("2Gi", {"cpus": 1, "memory": "2Gi"}, False), ("9Gi", None, True)],
)
def test_a_node_keeps_something_for_machines(
    objects: Any,
    now: datetime,
    reserved: str,
    capacity: Any,
    good: bool,  # noqa: FBT001  a column
) -> None:
    body = {
        "kind": "VMNode",
        "metadata": {"name": "node-a"},
        "spec": {"systemReserved": {"memory": reserved}},
        "status": {"capacity": capacity} if capacity else {},
    }
    assert (refusal(review_write(body, None, objects, now)) is None) == good


@pytest.mark.parametrize(
    ("ahead", "good"), [("2026-11-23T10:05:00Z", True), ("2026-11-23T10:05:01Z", False), ("2020-01-01T00:00:00Z", True)]
)
def test_a_restart_may_be_asked_by_a_clock_that_is_a_little_ahead(
    objects: Any,
    now: datetime,
    ahead: str,
    good: bool,  # noqa: FBT001  a column
) -> None:
    spec = {"memory": {"guest": "1Gi"}, "restartRequestedAt": ahead}
    assert (refusal(review_write(vm(spec), None, objects, now)) is None) == good


LIMITS = [
    ({"cpu": {"cores": 255}}, {"cpu": {"cores": 256}}),
    ({"memory": {"guest": "16Mi"}}, {"memory": {"guest": "16777215"}}),
    ({"memory": {"guest": "8Ti"}}, {"memory": {"guest": "8796093022209"}}),
    (disks(size="1Mi", source={"blank": {}}), disks(size="1048575", source={"blank": {}})),
    (disks(size="64Ti"), disks(size="70368744177665")),
    ({"machineType": "pc-i440fx-7.2"}, {"machineType": "pc-i440fx"}),
    ({"machineType": "i440fx"}, {"machineType": "pc-q35-7"}),
    ({"networks": [{"name": "a", "user": {}, "macAddress": "02:00:00:00:00:01"}]},
     {"networks": [{"name": "a", "user": {}, "macAddress": "03:00:00:00:00:01"}]}),
    ({"nodeSelector": {"example.org/zone": ""}}, {"nodeSelector": {"-/zone": ""}}),
    ({"nodeSelector": {"a" * 63: "b" * 63}}, {"nodeSelector": {"a" * 64: "b"}}),
    ({"nodeSelector": {"zone": "b" * 63}}, {"nodeSelector": {"zone": "b" * 64}}),
    ({"nodeSelector": {"a" * 253 + "/zone": "b"}}, {"nodeSelector": {"a" * 254 + "/zone": "b"}}),
    ({"runStrategy": "Manual", "powerState": "Stopped"}, {"runStrategy": "Halted", "powerState": "Stopped"}),
]  # fmt: skip


@pytest.mark.parametrize(("last_good", "first_bad"), LIMITS)
def test_limits(objects: Any, now: datetime, last_good: dict[str, Any], first_bad: dict[str, Any]) -> None:
    base = {"memory": {"guest": "1Gi"}}
    assert refusal(review_write(vm(base | last_good), None, objects, now)) is None
    assert refusal(review_write(vm(base | first_bad), None, objects, now)) is not None


# parsing


def test_a_status_of_another_version_counts_as_none() -> None:
    assert (
        parse_status(VirtualMachine, {"status": {"printableStatus": "Levitating", "future": 1}}).printable_status
        is None
    )
    parsed = parse(VirtualMachine, vm(status={"future": 1}))
    assert isinstance(parsed, VirtualMachine)


def test_metadata_is_read_past_what_is_not_modelled() -> None:
    meta = parse_metadata({"metadata": {"name": "x", "managedFields": [{"a": 1}], "labels": None, "selfLink": "/"}})
    assert (meta.name, meta.labels) == ("x", {})
    assert parse_metadata({}).name == ""


def patterns_in(model: type[BaseModel]) -> set[str]:
    """Every pattern of a model and of those inside it."""
    found: set[str] = set()
    for field in model.model_fields.values():
        found |= {m.pattern for m in field.metadata if getattr(m, "pattern", None)}
        stack = [field.annotation]
        while stack:
            annotation = stack.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                found |= patterns_in(annotation)
            for argument in typing.get_args(annotation):
                found |= {m for m in [getattr(argument, "pattern", None)] if isinstance(m, str)} - patterns_of_units(
                    argument
                )
                stack.append(argument)
    return found


def patterns_of_units(argument: Any) -> set[str]:
    """Quantities say their own remedy."""
    return {argument.pattern} if hasattr(argument, "remedy") else set()


def test_every_pattern_of_the_api_has_a_remedy() -> None:
    patterns = {pattern for kind in KINDS for pattern in patterns_in(model_of(kind, "spec"))}
    assert len(patterns) >= 8
    assert patterns <= PATTERN_REMEDIES.keys()


def test_texts_are_quoted_cut_and_joined() -> None:
    assert quote("a\nb") == r"'a\nb'"
    assert quote("x" * 48) == repr("x" * 48)
    assert quote("x" * 49) == repr("x" * 47 + "…")
    assert plain(" a\n\n b\u202e ", 10) == "a b"
    assert plain("x" * 1000, 10) == "x" * 10
    assert join_problems(["a", "b"]) == "a; b"
    assert join_problems(map(str, range(10))) == "0; 1; 2; 3; 4; 5; 6; 7; and 2 more"


# the handlers


def handlers(objects: Callable[[], Any], now: datetime) -> dict[str, Any]:
    registry = kopf.OperatorRegistry()
    register(registry, objects, lambda: now)
    return {handler.id: handler for handler in registry._webhooks.get_all_handlers()}


def test_every_kind_is_validated_and_fails_open(objects: Any, now: datetime) -> None:
    found = handlers(lambda: objects, now)
    guarded = ("vmimages", "vmnodes", "vmdisks", "virtualswitches", "securitygroups", "vmsnapshots")
    deletions = {f"{plural}-delete" for plural in guarded}
    assert found.keys() == {f"{kind.plural}-write" for kind in KINDS} | deletions
    assert all(handler.ignore_failures and handler.side_effects is False for handler in found.values())


def test_a_refusal_is_an_admission_error_with_the_sentence(objects: Any, now: datetime) -> None:
    found = handlers(lambda: objects, now)
    with pytest.raises(kopf.AdmissionError, match=r"^spec.future: is not known") as caught:
        found["virtualmachines-write"].fn(body=vm({"memory": {"guest": "1Gi"}, "future": 1}), old=None, warnings=[])
    assert caught.value.code == 422
    objects.users = ("shop/a",)
    with pytest.raises(kopf.AdmissionError, match=r"^VMImage debian-12 is used") as caught:
        found["vmimages-delete"].fn(body=image(), warnings=[])
    assert caught.value.code == 409


def test_what_is_missing_is_a_warning(objects: Any, now: datetime) -> None:
    warnings: list[str] = []
    handlers(lambda: objects, now)["virtualmachines-write"].fn(body=vm(disks()), old=None, warnings=warnings)
    assert warnings == ["spec.disks[0].source.image: there is no VMImage 'debian-12': create it or name another"]


def test_a_defect_of_ours_lets_the_request_pass(now: datetime, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise RuntimeError("no cache")

    found = handlers(broken, now)
    found["virtualmachines-write"].fn(body=vm(), old=None, warnings=[])
    found["vmnodes-delete"].fn(body={"kind": "VMNode", "metadata": {"name": "a"}}, warnings=[])
    assert [record.reason for record in caplog.records] == ["ReviewFailed", "ReviewFailed"]  # type: ignore[attr-defined]


def test_kinds_are_told_apart() -> None:
    assert isinstance(parse(VMImage, image()), VMImage)
    assert isinstance(parse(VMImage, vm()), Invalid)
