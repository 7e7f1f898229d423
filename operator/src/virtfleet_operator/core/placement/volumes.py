"""Which nodes a PersistentVolume can be reached from: Kubernetes' rules for node selectors."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from virtfleet_api.scheduling import SelectorOperator, SelectorRequirement
from virtfleet_operator.core.placement.labels import Labels, meets

Term = Mapping[str, Any]
"""A NodeSelectorTerm's JSON."""

_NAME: Final = "metadata.name"
"""The one field of a node that a selector can name."""

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}\Z")


def required_terms(volume: Mapping[str, Any]) -> tuple[Term, ...]:
    """Return the terms of a PersistentVolume's node affinity; without any, every node reaches it."""
    affinity = volume["spec"].get("nodeAffinity") or {}
    return tuple((affinity.get("required") or {}).get("nodeSelectorTerms") or ())


def reaches(terms: Iterable[Term], name: str, labels: Labels) -> bool:
    """Say whether a node of this name, with these labels, matches one of the terms."""
    return any(_matches(term, name, labels) for term in terms)


def _matches(term: Term, name: str, labels: Labels) -> bool:
    """Say whether a node matches all of a term; one that asks for nothing matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_meets(one, labels) for one in expressions) and all(_meets(one, {_NAME: name}) for one in fields)


def _meets(requirement: Mapping[str, Any], labels: Labels) -> bool:
    key, operator = requirement["key"], requirement["operator"]
    values = tuple(requirement.get("values") or ())
    if operator in ("Gt", "Lt"):
        return _compares(labels.get(key), operator, values)
    if operator not in set(SelectorOperator):
        return False
    return meets(
        SelectorRequirement.model_construct(key=key, operator=SelectorOperator(operator), values=values), labels
    )


def _compares(value: str | None, operator: str, values: tuple[str, ...]) -> bool:
    """Compare a label with the one value, both whole numbers."""
    if value is None or len(values) != 1 or not (_INTEGER.match(value) and _INTEGER.match(values[0])):
        return False
    return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
