"""Parsing takes whatever JSON there is, and loses nothing of what is valid."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.kinds import KINDS
from virtfleet_api.resource import Resource
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.parse import parse
from virtfleet_operator.core.validate import check, machine_problems
from virtfleet_operator.core.verdict import Invalid

NOW = datetime(2026, 11, 23, tzinfo=UTC)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
field_names = st.sampled_from(
    [
        "disks",
        "networks",
        "name",
        "size",
        "source",
        "image",
        "cpu",
        "cores",
        "memory",
        "guest",
        "cloudInit",
        "http",
        "url",
    ]
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(field_names | st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)


@given(st.from_type(VirtualMachine))
def test_what_is_written_is_what_is_parsed(vm: VirtualMachine) -> None:
    again = parse(VirtualMachine, vm.to_json_dict())
    assert again == vm


@given(st.from_type(VirtualMachine))
def test_a_valid_machine_has_no_problems(vm: VirtualMachine) -> None:
    assert machine_problems(vm, NOW) == ()


@given(st.sampled_from(KINDS), json_values, json_values)
def test_any_json_is_parsed_or_answered_by_bounded_printable_sentences(
    kind: type[Resource], spec: Any, status: Any
) -> None:
    parsed = parse(kind, {"metadata": {"name": "x"}, "spec": spec, "status": status})
    found = parsed if isinstance(parsed, Invalid) else check(parsed, NOW)
    if found is not None:
        assert found.problems
        assert all(problem.isprintable() and len(problem) < 600 for problem in found.problems)
        assert len(found.message) < 2200
