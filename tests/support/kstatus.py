"""What Flux makes of an object: kstatus' rules for kinds that it does not know (kpt's reconcile status).

https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
"""

from enum import StrEnum
from typing import Any

import celpy


class Health(StrEnum):
    """kstatus' words."""

    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"
    TERMINATING = "Terminating"


def kstatus(found: dict[str, Any]) -> Health:
    """Judge an object as kstatus does."""
    meta, status = found["metadata"], found.get("status", {})
    if "deletionTimestamp" in meta:
        return Health.TERMINATING
    if status.get("observedGeneration", meta.get("generation")) != meta.get("generation"):
        return Health.IN_PROGRESS
    said = {one["type"]: one["status"] for one in status.get("conditions", [])}
    if said.get("Reconciling") == "True":
        return Health.IN_PROGRESS
    if said.get("Stalled") == "True":
        return Health.FAILED
    return Health.CURRENT if said.get("Ready", "True") == "True" else Health.IN_PROGRESS


def judge(found: dict[str, Any], expressions: dict[str, str]) -> Health:
    """Judge an object as Flux does with healthCheckExprs: what is not said to be anything else is in progress."""
    meta, status = found["metadata"], found.get("status", {})
    if status.get("observedGeneration", meta["generation"]) != meta["generation"]:
        return Health.IN_PROGRESS
    for name, health in (("inProgress", Health.IN_PROGRESS), ("failed", Health.FAILED), ("current", Health.CURRENT)):
        if name in expressions and _holds(expressions[name], found):
            return health
    return Health.IN_PROGRESS


def _holds(expression: str, found: dict[str, Any]) -> bool:
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    try:
        return bool(program.evaluate({key: celpy.json_to_cel(value) for key, value in found.items()}))
    except celpy.CELEvalError:
        return False  # a field is not there, which Flux takes for "not so" as well
