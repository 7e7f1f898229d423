"""What each node offers, kept from one placing to the next: what has not changed is not worked out again."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from virtfleet_api.device import DeviceClassRule
from virtfleet_api.report import NodeReport
from virtfleet_api.vm_image import ImagePhase
from virtfleet_api.vm_node import VMNode
from virtfleet_operator.core.place import Candidate, Load, NodeView, candidate
from virtfleet_operator.fleet.members import Fleet
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.reconcile.catalog import NODE
from virtfleet_operator.reconcile.loads import Loads


@dataclass(frozen=True)
class _Offer:
    """A candidate with what it was made of."""

    view: NodeView
    candidate: Candidate

    def holds(self, node: VMNode, report: NodeReport | None, load: Load, *, heard: bool) -> bool:
        """Say whether it would be made the same again."""
        view = self.view
        return view.node is node and view.report is report and view.heard == heard and view.load == load


class Offers:
    """The candidates of placement."""

    def __init__(self, cache: Cache, loads: Loads, fleet: Fleet, device_rules: Sequence[DeviceClassRule]) -> None:
        self._cache = cache
        self._loads = loads
        self._fleet = fleet
        self._device_rules = device_rules
        self._known: dict[str, _Offer] = {}

    def candidates(self) -> Collection[Candidate]:
        """Return every node as placement sees it."""
        nodes = [stored.resource for stored in self._cache.all(NODE)]
        offers = [self._offer(node) for node in nodes if isinstance(node, VMNode)]
        self._known = {offer.candidate.name: offer for offer in offers}
        return [offer.candidate for offer in offers]

    def holders(self, images: Collection[str]) -> dict[str, frozenset[str]]:
        """Return which nodes hold a good copy of each of these images, by UID."""
        return {uid: frozenset(name for name in self._holding(uid)) for uid in images}

    def _holding(self, uid: str) -> list[str]:
        reports = ((state.name, state.images.get(uid)) for state in self._fleet)
        return [name for name, report in reports if report is not None and report.phase is ImagePhase.READY]

    def _offer(self, node: VMNode) -> _Offer:
        name = node.metadata.name
        state = self._fleet.node(name)
        report, load = state.report if state else None, self._loads.of(name)
        heard = self._fleet.contact(name) is Contact.HEARD
        known = self._known.get(name)
        if known is not None and known.holds(node, report, load, heard=heard):
            return known
        view = NodeView(node, report, heard, load, self._device_rules)
        return _Offer(view, candidate(view))
