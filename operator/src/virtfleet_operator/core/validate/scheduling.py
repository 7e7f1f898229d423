"""Rules about where machines may run: tolerations, affinity and taints."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from virtfleet_api.scheduling import (
    LabelSelector,
    MachineAffinity,
    MachineTerm,
    NodeAffinity,
    NodeSelectorTerm,
    SelectorOperator,
    SelectorRequirement,
    Taint,
    Toleration,
    TolerationOperator,
)
from virtfleet_api.virtual_machine import VirtualMachineSpec
from virtfleet_operator.core.validate.names import is_dns_label, is_label_key
from virtfleet_operator.core.verdict import quote

_LISTED: Final = frozenset({SelectorOperator.IN, SelectorOperator.NOT_IN})


def scheduling_problems(spec: VirtualMachineSpec) -> Iterator[str]:
    """Check a machine's tolerations and affinity."""
    for index, toleration in enumerate(spec.tolerations):
        yield from _toleration_problems(f"spec.tolerations[{index}]", toleration)
    if spec.affinity is None:
        return
    if spec.affinity.node_affinity:
        yield from _node_affinity_problems("spec.affinity.nodeAffinity", spec.affinity.node_affinity)
    if spec.affinity.vm_affinity:
        yield from _machine_affinity_problems("spec.affinity.vmAffinity", spec.affinity.vm_affinity)
    if spec.affinity.vm_anti_affinity:
        yield from _machine_affinity_problems("spec.affinity.vmAntiAffinity", spec.affinity.vm_anti_affinity)


def taint_problems(taints: Sequence[Taint]) -> Iterator[str]:
    """Check a node's taints."""
    for index, taint in enumerate(taints):
        if any((other.key, other.effect) == (taint.key, taint.effect) for other in taints[:index]):
            yield (
                f"spec.taints[{index}].key: {quote(taint.key)} is there twice with effect {taint.effect}: "
                "keep one of them, or write another key"
            )


def _toleration_problems(where: str, toleration: Toleration) -> Iterator[str]:
    if toleration.operator is TolerationOperator.EXISTS and toleration.value:
        yield (
            f"{where}.value: {quote(toleration.value)} has no meaning with operator Exists: "
            "remove it, or write operator: Equal"
        )
    if toleration.operator is TolerationOperator.EQUAL and toleration.key is None:
        yield f"{where}.key: is missing with operator Equal: write the taint's key, or operator: Exists for every taint"


def _node_affinity_problems(where: str, affinity: NodeAffinity) -> Iterator[str]:
    for index, term in enumerate(affinity.required):
        yield from _term_problems(f"{where}.required[{index}]", term)
    for index, preferred in enumerate(affinity.preferred):
        yield from _term_problems(f"{where}.preferred[{index}].preference", preferred.preference)


def _term_problems(where: str, term: NodeSelectorTerm) -> Iterator[str]:
    yield from _requirement_problems(f"{where}.matchExpressions", term.match_expressions)


def _machine_affinity_problems(where: str, affinity: MachineAffinity) -> Iterator[str]:
    for index, term in enumerate(affinity.required):
        yield from _machine_term_problems(f"{where}.required[{index}]", term)
    for index, preferred in enumerate(affinity.preferred):
        yield from _machine_term_problems(f"{where}.preferred[{index}].term", preferred.term)


def _machine_term_problems(where: str, term: MachineTerm) -> Iterator[str]:
    yield from selector_problems(f"{where}.labelSelector", term.label_selector)
    for index, namespace in enumerate(term.namespaces):
        if not is_dns_label(namespace):
            yield f'{where}.namespaces[{index}]: {quote(namespace)} is not a namespace: write one such as "shop"'


def selector_problems(where: str, selector: LabelSelector) -> Iterator[str]:
    """Check a label selector; `where` is the field that it is in."""
    yield from _key_problems(f"{where}.matchLabels", selector.match_labels)
    yield from _requirement_problems(f"{where}.matchExpressions", selector.match_expressions)


def _key_problems(where: str, labels: Mapping[str, str]) -> Iterator[str]:
    for key in labels:
        if not is_label_key(key):
            yield f'{where}[{quote(key)}]: is not a label name: write one such as "zone" or "example.org/zone"'


def _requirement_problems(where: str, requirements: Sequence[SelectorRequirement]) -> Iterator[str]:
    for index, requirement in enumerate(requirements):
        if requirement.operator in _LISTED and not requirement.values:
            yield (
                f"{where}[{index}].values: is empty with operator {requirement.operator}: "
                "write the values, or operator: Exists or DoesNotExist"
            )
        if requirement.operator not in _LISTED and requirement.values:
            yield (
                f"{where}[{index}].values: has no meaning with operator {requirement.operator}: "
                "remove the values, or write operator: In or NotIn"
            )
