"""From what was decided and observed to the status of each kind.

Two rules hold for all of them. A status is a function of facts that rest (no clock reading, no counter that moves by
itself), so that a converged object is never written. And no condition claims a generation of the spec that it does
not speak of, so that whoever waits for Ready does not see the Ready of an older spec.
"""

from virtfleet_operator.core.summarise.facts import MachineFacts
from virtfleet_operator.core.summarise.image import ImageFacts, summarise_image
from virtfleet_operator.core.summarise.machine import summarise_machine
from virtfleet_operator.core.summarise.node import NodeFacts, summarise_node
from virtfleet_operator.core.summarise.vm_class import summarise_class

__all__ = [
    "ImageFacts",
    "MachineFacts",
    "NodeFacts",
    "summarise_class",
    "summarise_image",
    "summarise_machine",
    "summarise_node",
]
