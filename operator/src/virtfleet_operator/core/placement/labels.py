"""Labels against selectors, and taints against tolerations: Kubernetes' rules."""

from collections.abc import Iterable, Mapping

from virtfleet_api.scheduling import (
    LabelSelector,
    NodeAffinity,
    NodeSelectorTerm,
    SelectorOperator,
    SelectorRequirement,
    Taint,
    TaintEffect,
    Toleration,
    TolerationOperator,
)

Labels = Mapping[str, str]


def meets(requirement: SelectorRequirement, labels: Labels) -> bool:
    """Say whether labels are as required. NotIn holds, too, where the label is absent."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case SelectorOperator.IN:
            return value is not None and value in requirement.values
        case SelectorOperator.NOT_IN:
            return value is None or value not in requirement.values
        case SelectorOperator.EXISTS:
            return value is not None
        case SelectorOperator.DOES_NOT_EXIST:
            return value is None


def selects(selector: LabelSelector, labels: Labels) -> bool:
    """Say whether a selector matches an object with these labels; an empty one matches all."""
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    return all(meets(requirement, labels) for requirement in selector.match_expressions)


def matches(term: NodeSelectorTerm, labels: Labels) -> bool:
    """Say whether a node with these labels matches all of a term."""
    return all(meets(requirement, labels) for requirement in term.match_expressions)


def admits(affinity: NodeAffinity, labels: Labels) -> bool:
    """Say whether a node with these labels matches one of the required terms, if there are any."""
    return not affinity.required or any(matches(term, labels) for term in affinity.required)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Say whether a toleration is about the taint. One without a key, with Exists, is about every taint."""
    if toleration.effect not in (None, taint.effect) or toleration.key not in (None, taint.key):
        return False
    if toleration.operator is TolerationOperator.EXISTS:
        return True
    return toleration.key is not None and toleration.value == taint.value


def untolerated(taints: Iterable[Taint], tolerations: Iterable[Toleration], effect: TaintEffect) -> list[Taint]:
    """Return the taints of this effect that no toleration is about."""
    known = tuple(tolerations)
    return [t for t in taints if t.effect is effect and not any(tolerates(toleration, t) for toleration in known)]
