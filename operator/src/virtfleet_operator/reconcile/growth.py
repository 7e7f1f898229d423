"""A machine that would grow beyond its node, by its class or unseen by admission, stays as it is."""

from dataclasses import replace

from virtfleet_api.machine import Machine, Run
from virtfleet_operator.core.effective import Sizing
from virtfleet_operator.core.growth import growth_problems
from virtfleet_operator.core.place import load_of
from virtfleet_operator.core.verdict import Waiting, join_problems
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.loads import running_load


def grows_too_much(context: Context, stored: Stored, node: str, sizing: Sizing, document: Machine) -> Waiting | None:
    """Say why a node is not told of a machine's document; None when it is to be told, or has been."""
    room = context.room(node, stored.key)
    if room is None or stored.status.machine is None or document.run is Run.STOPPED:
        return None
    if context.fleet.knows_machine(node, document):
        return None
    before = replace(running_load(stored.status), reserved_hz=sizing.scheduling.reservation_hz)
    problems = growth_problems(before, load_of(sizing, {}), room)
    return Waiting("NodeFull", join_problems(problems), watched=False) if problems else None
