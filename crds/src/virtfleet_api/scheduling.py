"""Where machines may run: taints, tolerations and affinity, in Kubernetes' words."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import ATOMIC, Model

LABEL_KEY_PATTERN: Final = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN: Final = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"

LabelKey = Annotated[str, Field(pattern=LABEL_KEY_PATTERN, max_length=317)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE_PATTERN, max_length=63)]


class TaintEffect(StrEnum):
    """What a taint does to machines that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"


class Taint(Model):
    """Keeps machines off a node that do not tolerate it."""

    key: Annotated[LabelKey, Field(description="Name of the taint.")]
    value: Annotated[LabelValue, Field(description="Its value.")] = ""
    effect: Annotated[
        TaintEffect,
        Field(description="NoSchedule: takes no new machine. PreferNoSchedule: takes one when no other node can."),
    ]


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EQUAL = "Equal"
    EXISTS = "Exists"


class Toleration(Model):
    """A taint that the machine does not mind."""

    key: Annotated[LabelKey | None, Field(description="Name of the taint; every taint when absent, with Exists.")] = (
        None
    )
    operator: Annotated[
        TolerationOperator, Field(description="Equal: the value is the same. Exists: whatever the value.")
    ] = TolerationOperator.EQUAL
    value: Annotated[LabelValue, Field(description="Value of the taint.")] = ""
    effect: Annotated[TaintEffect | None, Field(description="Effect of the taint; any when absent.")] = None


class SelectorOperator(StrEnum):
    """How a label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class SelectorRequirement(Model):
    """What a label must be."""

    key: Annotated[LabelKey, Field(description="Name of the label.")]
    operator: Annotated[SelectorOperator, Field(description="In, NotIn, Exists or DoesNotExist.")]
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64, description="Values, with In and NotIn.")] = ()


class LabelSelector(Model):
    """Objects by their labels; an empty one matches all."""

    match_labels: Annotated[
        dict[str, LabelValue],
        Field(default_factory=dict, max_length=32, description="Labels and their values.", json_schema_extra=ATOMIC),
    ]
    match_expressions: Annotated[
        tuple[SelectorRequirement, ...], Field(max_length=32, description="What labels must be.")
    ] = ()


class NodeSelectorTerm(Model):
    """Nodes that match all of its requirements."""

    match_expressions: Annotated[
        tuple[SelectorRequirement, ...],
        Field(min_length=1, max_length=32, description="What the node's labels must be."),
    ]


class PreferredNodes(Model):
    """Nodes that are better than others."""

    weight: Annotated[int, Field(ge=1, le=100, description="How much better, against other preferences.")]
    preference: Annotated[NodeSelectorTerm, Field(description="The nodes.")]


class NodeAffinity(Model):
    """Nodes that the machine needs or prefers."""

    required: Annotated[
        tuple[NodeSelectorTerm, ...], Field(max_length=32, description="The node must match one of them.")
    ] = ()
    preferred: Annotated[tuple[PreferredNodes, ...], Field(max_length=32, description="Better nodes.")] = ()


class MachineTerm(Model):
    """Machines, and how near they are: on nodes with the same value of a label."""

    label_selector: Annotated[LabelSelector, Field(description="Labels of the machines.")]
    namespaces: Annotated[
        tuple[Annotated[str, Field(max_length=63)], ...],
        Field(max_length=32, description="Their namespaces; this machine's when there are none."),
    ] = ()
    topology_key: Annotated[
        LabelKey,
        Field(description="Label of nodes that says what is near; the node itself by default."),
    ] = "kubernetes.io/hostname"


class PreferredMachines(Model):
    """Machines that it is better to be near to, or far from."""

    weight: Annotated[int, Field(ge=1, le=100, description="How much better, against other preferences.")]
    term: Annotated[MachineTerm, Field(description="The machines.")]


class MachineAffinity(Model):
    """Machines that this one needs or prefers to be near to, or far from."""

    required: Annotated[
        tuple[MachineTerm, ...], Field(max_length=32, description="All of them hold on the node, or it is not taken.")
    ] = ()
    preferred: Annotated[tuple[PreferredMachines, ...], Field(max_length=32, description="Better nodes.")] = ()


class Affinity(Model):
    """Nodes by their labels, and by the machines that they run. Heeded when a machine is placed."""

    node_affinity: Annotated[NodeAffinity | None, Field(description="Nodes by their labels.")] = None
    vm_affinity: Annotated[MachineAffinity | None, Field(description="Near these machines.")] = None
    vm_anti_affinity: Annotated[
        MachineAffinity | None, Field(description="Far from these machines. Holds in both directions.")
    ] = None
