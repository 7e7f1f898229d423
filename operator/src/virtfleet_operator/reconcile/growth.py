"""A machine that would grow beyond its node, by its class or unseen by admission, stays as it is.

One that asks for too great a reservation is changed in all else.
"""

from dataclasses import replace
from typing import Final

from virtfleet_api.machine import Machine, Run
from virtfleet_api.quantity import Frequency
from virtfleet_operator.core.effective import Sizing
from virtfleet_operator.core.growth import growth_problems, kept_reservation
from virtfleet_operator.core.place import load_of
from virtfleet_operator.core.room import Room
from virtfleet_operator.core.verdict import Waiting, join_problems
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.loads import running_load

RESERVATION_REFUSED: Final = "ReservationRefused"
"""Reason while a bound machine asks for more of its node's CPUs than can be kept for it."""


def within_node(
    context: Context, stored: Stored, node: str, sizing: Sizing, document: Machine
) -> tuple[Machine | None, Waiting | None]:
    """Return what a bound machine's node is told, None for nothing new, and why that is not all that is asked for."""
    room = context.room(node, stored.key)
    hertz, problem = kept_reservation(sizing, context.loads.reserved_hz(stored.key), room)
    context.loads.keep_reservation(stored.key, node, hertz)
    if problem:
        document = _with_reservation(document, hertz)
    if room is not None and (too_much := _grows_too_much(context, stored, room, sizing, document)):
        return None, too_much
    return document, _refused(hertz, problem) if problem else None


def _grows_too_much(context: Context, stored: Stored, room: Room, sizing: Sizing, document: Machine) -> Waiting | None:
    """Say why a node is not told of a machine's document; None when it is to be told, or has been."""
    if stored.status.machine is None or document.run is Run.STOPPED:
        return None
    if context.fleet.knows_machine(room.node_name, document):
        return None
    before = replace(running_load(stored.status), reserved_hz=sizing.scheduling.reservation_hz)
    problems = growth_problems(before, load_of(sizing, {}), room)
    return Waiting("NodeFull", join_problems(problems), watched=False) if problems else None


def _with_reservation(document: Machine, hertz: int) -> Machine:
    scheduling = document.hardware.scheduling.model_copy(update={"reservation_hz": hertz})
    return document.model_copy(update={"hardware": document.hardware.model_copy(update={"scheduling": scheduling})})


def _refused(hertz: int, problem: str) -> Waiting:
    kept = f"The machine keeps what it has, {Frequency(hertz)}" if hertz else "Nothing is reserved for the machine"
    return Waiting(RESERVATION_REFUSED, f"{kept}. {problem}", watched=False)
