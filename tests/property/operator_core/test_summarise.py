"""A status settles, fits the CRD, survives being read back, and claims no generation it does not speak of."""

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.base import Model
from virtfleet_api.conditions import ConditionStatus, ConditionType
from virtfleet_api.report import NodeReport, Phase
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_machine_status import VirtualMachineStatus
from virtfleet_api.vm_image import VMImage, VMImageStatus
from virtfleet_api.vm_node import VMNode, VMNodeStatus
from virtfleet_operator.core.events import image_events, machine_events, node_events
from virtfleet_operator.core.parse import parse_status
from virtfleet_operator.core.place import Load
from virtfleet_operator.core.summarise import (
    ImageFacts,
    MachineFacts,
    NodeFacts,
    summarise_image,
    summarise_machine,
    summarise_node,
)
from virtfleet_operator.core.writes import AT_ONCE, PASSING_AFTER, is_transitional, machine_write_due, merge_patch

NOW = datetime(2026, 11, 23, 10, 0, 0, 999, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
CRDS = Path(__file__).parents[3] / "crds"

histories = st.lists(st.from_type(MachineFacts), min_size=1, max_size=2)


@cache
def status_schema(kind: str) -> jsonschema.Draft202012Validator:
    plural = {"VirtualMachine": "virtualmachines", "VMImage": "vmimages", "VMNode": "vmnodes"}[kind]
    crd = yaml.safe_load((CRDS / f"virtfleet.io_{plural}.yaml").read_text(encoding="utf-8"))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return jsonschema.Draft202012Validator(schema)


def assert_storable(kind: type, status: Model) -> None:
    """The API server takes it, and what is read back is equal: else it would be written for ever."""
    stored = status.to_json_dict()
    status_schema(kind.__name__).validate(stored)
    assert parse_status(kind, {"status": stored}) == status


def after(meta: ObjectMeta, history: list[MachineFacts]) -> VirtualMachineStatus:
    status = VirtualMachineStatus()
    for facts in history:
        status = summarise_machine(meta, status, facts, NOW)
    return status


@given(st.from_type(ObjectMeta), histories)
def test_a_machine_whose_facts_rest_is_not_written_again(meta: ObjectMeta, history: list[MachineFacts]) -> None:
    status = after(meta, history)
    again = summarise_machine(meta, status, history[-1], LATER)
    assert again == status
    assert machine_write_due(status, again, LATER) is None
    assert machine_events(status, again) == ()


@given(st.from_type(ObjectMeta), histories)
def test_a_machine_status_can_be_stored(meta: ObjectMeta, history: list[MachineFacts]) -> None:
    assert_storable(VirtualMachine, after(meta, history))


@given(st.from_type(ObjectMeta), histories)
def test_ready_is_said_of_the_generation_that_runs(meta: ObjectMeta, history: list[MachineFacts]) -> None:
    status, facts = after(meta, history), history[-1]
    conditions = {c.type: c for c in status.conditions}
    ready = conditions[ConditionType.READY]
    assert status.observed_generation <= meta.generation
    assert all(c.observed_generation <= meta.generation for c in status.conditions)
    if ready.status == ConditionStatus.TRUE:
        assert facts.report is not None
        assert facts.report.phase == Phase.RUNNING
        assert facts.node_heard
        assert meta.deletion_timestamp is None
        assert ready.observed_generation == min(facts.report.generation, meta.generation)
    if conditions[ConditionType.SYNCHRONIZED].status == ConditionStatus.TRUE:
        assert facts.report is not None
        assert facts.report.generation >= meta.generation
        assert facts.verdict is None


@given(st.from_type(ObjectMeta), histories, st.from_type(MachineFacts))
def test_a_status_never_goes_back(meta: ObjectMeta, history: list[MachineFacts], facts: MachineFacts) -> None:
    before = after(meta, history)
    new = summarise_machine(meta, before, facts, LATER)
    assert new.observed_generation >= before.observed_generation
    assert before.node_name is None or new.node_name is not None
    old = {c.type: c for c in before.conditions}
    for condition in new.conditions:
        kept = condition.type in old and old[condition.type].status == condition.status
        expected = old[condition.type].last_transition_time if kept else LATER.replace(microsecond=0)
        assert condition.last_transition_time == expected


@given(st.from_type(ObjectMeta), histories)
def test_words_of_guests_and_nodes_are_harmless(meta: ObjectMeta, history: list[MachineFacts]) -> None:
    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for inner in value.values() for text in texts(inner)]
        if isinstance(value, list):
            return [text for inner in value for text in texts(inner)]
        return [value] if isinstance(value, str) else []

    status = after(meta, history)
    assert all(text.isprintable() and len(text) < 2100 for text in texts(status.to_json_dict()))
    for event in machine_events(VirtualMachineStatus(), status):
        assert event.message.isprintable()
        assert len(event.message) <= 1024


@given(st.from_type(ObjectMeta), histories, histories)
def test_a_patch_makes_the_new_status_of_the_old(
    meta: ObjectMeta, first: list[MachineFacts], second: list[MachineFacts]
) -> None:
    old, new = after(meta, first).to_json_dict(), after(meta, second).to_json_dict()
    patched = apply_merge_patch(old, merge_patch(old, new))
    assert patched == new
    assert merge_patch(new, new) == {}


def apply_merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396, as it stands there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = apply_merge_patch(result.get(name), value)
    return result


@given(st.from_type(ObjectMeta), histories, st.from_type(MachineFacts))
def test_what_passes_is_given_time_and_what_is_wrong_is_not(
    meta: ObjectMeta, history: list[MachineFacts], facts: MachineFacts
) -> None:
    before = after(meta, history)
    new = summarise_machine(meta, before, facts, LATER)
    due = machine_write_due(before, new, LATER)
    if before == new:
        assert due is None
    else:
        assert due == (LATER + PASSING_AFTER if is_transitional(new) else LATER)


@given(st.from_type(ObjectMeta), st.from_type(ImageFacts))
def test_an_image_status_settles_and_can_be_stored(meta: ObjectMeta, facts: ImageFacts) -> None:
    status = summarise_image(meta, VMImageStatus(), facts, NOW)
    assert_storable(VMImage, status)
    assert summarise_image(meta, status, facts, LATER) == status
    assert image_events(status, status) == ()


@given(st.from_type(ObjectMeta), st.none() | st.from_type(NodeReport), st.booleans())
def test_a_node_status_settles_and_can_be_stored(meta: ObjectMeta, report: NodeReport | None, heard: bool) -> None:  # noqa: FBT001  drawn by hypothesis
    facts = NodeFacts(report=report, heard=heard, address="192.0.2.1:8443", load=Load(1, 2, 2**30), orphans=("u",))
    node = VMNode(metadata=meta)
    status = summarise_node(node, facts, NOW)
    assert_storable(VMNode, status)
    assert summarise_node(node.model_copy(update={"status": status}), facts, LATER) == status
    assert node_events(status, status) == ()
    assert node_events(VMNodeStatus(), status)


def test_at_once_is_before_every_time() -> None:
    assert datetime(1970, 1, 1, tzinfo=UTC) > AT_ONCE
