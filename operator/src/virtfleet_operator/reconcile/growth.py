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
from virtfleet_operator.core.verdict import Waiting, join_problems
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.loads import running_load

RESERVATION_REFUSED: Final = "ReservationRefused"
"""Reason while a bound machine asks for more of its node's CPUs than can be kept for it."""


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


def with_reservation(
    context: Context, stored: Stored, node: str, sizing: Sizing, document: Machine
) -> tuple[Machine, Waiting | None]:
    """Return the document with what its node can keep of its CPUs, and why that is not what the machine asks for."""
    room, held = context.room(node, stored.key), context.loads.reserved_hz(stored.key)
    hertz, problem = kept_reservation(sizing, held, room)
    context.loads.keep_reservation(stored.key, node, hertz)
    if not problem:
        return document, None
    scheduling = document.hardware.scheduling.model_copy(update={"reservation_hz": hertz})
    hardware = document.hardware.model_copy(update={"scheduling": scheduling})
    kept = f"The machine keeps what it has, {Frequency(hertz)}" if hertz else "Nothing is reserved for the machine"
    verdict = Waiting(RESERVATION_REFUSED, f"{kept}. {problem}", watched=False)
    return document.model_copy(update={"hardware": hardware}), verdict
