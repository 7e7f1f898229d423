"""Which change of the spec a command is, and when it has taken effect. Pure: object and time in, patch out.

The commands change what the user could have changed with `kubectl edit`, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from virtfleet_api.names import GROUP
from virtfleet_api.virtual_machine import PowerState, RunStrategy
from virtfleet_api.virtual_machine_status import PrintableStatus
from virtfleet_cli.errors import CliError

GRACE_ANNOTATION: Final = f"{GROUP}/grace-period-before-force"
"""Holds spec.terminationGracePeriodSeconds while `stop --force` has set it to 0; `start` puts it back."""

Object = Mapping[str, Any]

_OFF: Final = frozenset({PrintableStatus.STOPPED, PrintableStatus.CRASHED})


@dataclass(frozen=True)
class Change:
    """What a command does to a machine."""

    patch: dict[str, Any]
    """JSON merge patch; empty when the machine is asked for that already."""
    sentence: str
    goal: frozenset[PrintableStatus]
    """States in which it has taken effect."""
    restarted_from: str | None = None
    """With a restart: when the guest had been started that shall be replaced."""


def plan_start(machine: Object, now: datetime) -> Change:
    """Make it run: out of Halted or Stopped, or once more after the guest ended by itself."""
    spec, name = _spec(machine), _name(machine)
    goal = frozenset({PrintableStatus.RUNNING})
    if _strategy(spec) is RunStrategy.HALTED:
        wanted: dict[str, Any] = {"runStrategy": RunStrategy.ALWAYS}
        if "powerState" in spec:
            wanted["powerState"] = None  # else a machine that was stopped while paused would start paused
        return Change(
            _patch(machine, wanted, put_grace_back=True), f"{name} is asked to run (runStrategy Always).", goal
        )
    if _power(spec) is PowerState.STOPPED:
        patch = _patch(machine, {"powerState": PowerState.RUNNING}, put_grace_back=True)
        return Change(patch, f"{name} is asked to run.", goal)
    if _power(spec) is PowerState.PAUSED:
        raise CliError(f"{name} is paused; let it go on with `kubectl vm resume`.")
    if _status(machine) in _OFF:
        patch = _patch(machine, {"restartRequestedAt": _token(spec, now)}, put_grace_back=True)
        return Change(patch, f"{name} is asked to start again.", goal, _started_at(machine))
    return Change({}, f"{name} is already asked to run.", goal)


def plan_stop(machine: Object, *, force: bool) -> Change:
    """Shut it down and keep it off; by force without waiting for the guest."""
    spec, name = _spec(machine), _name(machine)
    manual = _strategy(spec) is RunStrategy.MANUAL
    wanted: dict[str, Any] = {}
    if manual and _power(spec) is not PowerState.STOPPED:
        wanted = {"powerState": PowerState.STOPPED}
    elif not manual and _strategy(spec) is not RunStrategy.HALTED:
        wanted = {"runStrategy": RunStrategy.HALTED}
    patch: dict[str, Any] = {"spec": wanted} if wanted else {}
    grace = spec.get("terminationGracePeriodSeconds", 60)
    if force and grace:
        patch = {
            "metadata": {"annotations": {GRACE_ANNOTATION: str(grace)}},
            "spec": {**wanted, "terminationGracePeriodSeconds": 0},
        }
    how = "switched off at once" if force else "shut down"
    sentence = f"{name} is asked to be {how}." if patch else f"{name} is already asked to be off."
    return Change(patch, sentence, frozenset({PrintableStatus.STOPPED}))


def plan_restart(machine: Object, now: datetime) -> Change:
    """Restart the guest once, gracefully."""
    spec, name = _spec(machine), _name(machine)
    _refuse_off(spec, name)
    patch = _patch(machine, {"restartRequestedAt": _token(spec, now)})
    goal = frozenset({PrintableStatus.RUNNING, PrintableStatus.PAUSED})
    return Change(patch, f"{name} is asked to restart.", goal, _started_at(machine))


def plan_pause(machine: Object) -> Change:
    """Freeze the guest where it is."""
    spec, name = _spec(machine), _name(machine)
    _refuse_off(spec, name)
    goal = frozenset({PrintableStatus.PAUSED})
    if _power(spec) is PowerState.PAUSED:
        return Change({}, f"{name} is already asked to pause.", goal)
    return Change(_patch(machine, {"powerState": PowerState.PAUSED}), f"{name} is asked to pause.", goal)


def plan_resume(machine: Object) -> Change:
    """Let a paused guest go on."""
    spec, name = _spec(machine), _name(machine)
    _refuse_off(spec, name)
    goal = frozenset({PrintableStatus.RUNNING})
    if _power(spec) is not PowerState.PAUSED:
        return Change({}, f"{name} is not paused.", goal)
    return Change(_patch(machine, {"powerState": PowerState.RUNNING}), f"{name} is asked to go on.", goal)


def has_happened(change: Change, machine: Object) -> bool:
    """Tell whether the machine, as it is now, is what the change asked for."""
    status = machine.get("status") or {}
    if status.get("observedGeneration", 0) < machine["metadata"].get("generation", 0):
        return False
    if "restartRequestedAt" in change.patch.get("spec", {}) and _started_at(machine) == change.restarted_from:
        return False
    return _status(machine) in change.goal


def describe_state(machine: Object) -> str:
    """Say in words how the machine is, and why it is not Ready."""
    status = machine.get("status") or {}
    ready: Object = next((c for c in status.get("conditions", ()) if c.get("type") == "Ready"), {})
    why = ready.get("message") if ready.get("status") != "True" else ""
    return f"{status.get('printableStatus') or 'not reconciled yet'}" + (f": {why}" if why else "")


def _patch(machine: Object, spec: dict[str, Any], *, put_grace_back: bool = False) -> dict[str, Any]:
    grace = (machine["metadata"].get("annotations") or {}).get(GRACE_ANNOTATION)
    if not put_grace_back or grace is None:
        return {"spec": spec}
    seconds = int(grace) if grace.isascii() and grace.isdigit() and len(grace) < 6 else 60  # noqa: PLR2004 -- a day
    return {
        "metadata": {"annotations": {GRACE_ANNOTATION: None}},
        "spec": {**spec, "terminationGracePeriodSeconds": seconds},
    }


def _token(spec: Object, now: datetime) -> str:
    """Return the time of a request: now in whole seconds, and newer than the last."""
    wanted = now.astimezone(UTC).replace(microsecond=0)
    if last := spec.get("restartRequestedAt"):
        wanted = max(wanted, datetime.fromisoformat(last).astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1))
    return wanted.strftime("%Y-%m-%dT%H:%M:%SZ")


def _refuse_off(spec: Object, name: str) -> None:
    if _strategy(spec) is RunStrategy.HALTED or _power(spec) is PowerState.STOPPED:
        raise CliError(f"{name} is asked to be off; start it with `kubectl vm start`.")


def _name(machine: Object) -> str:
    return f"VirtualMachine {machine['metadata'].get('namespace', 'default')}/{machine['metadata']['name']}"


def _spec(machine: Object) -> Object:
    spec: Object = machine.get("spec") or {}
    return spec


def _strategy(spec: Object) -> RunStrategy:
    return RunStrategy(spec.get("runStrategy", RunStrategy.ALWAYS))


def _power(spec: Object) -> PowerState:
    """Return the state asked for; Stopped counts with Manual alone, as the schema says."""
    power = PowerState(spec.get("powerState", PowerState.RUNNING))
    stopped = power is PowerState.STOPPED and _strategy(spec) is not RunStrategy.MANUAL
    return PowerState.RUNNING if stopped else power


def _status(machine: Object) -> str | None:
    found: str | None = (machine.get("status") or {}).get("printableStatus")
    return found


def _started_at(machine: Object) -> str | None:
    found: str | None = ((machine.get("status") or {}).get("machine") or {}).get("startedAt")
    return found
