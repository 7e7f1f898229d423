"""The machine that `kubectl vm clone` makes of another. Pure: object in, manifest out."""

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

from virtfleet_api.names import API_VERSION, GROUP
from virtfleet_api.virtual_machine import Clone, PowerState, RunStrategy
from virtfleet_api.virtual_machine_status import PrintableStatus
from virtfleet_cli.errors import CliError
from virtfleet_cli.power import GRACE_ANNOTATION, Change

Object = Mapping[str, Any]

_MAX_GRACE_DIGITS: Final = 5  # spec.terminationGracePeriodSeconds is at most a day


def build_clone(source: Object, name: str, *, full: bool, start: bool | None) -> dict[str, Any]:
    """Return a manifest like the source's, with copies of its disks and nothing that must be the source's alone.

    MAC addresses that the source names are left out, so that new ones are derived. `start` None does as the source
    does. Labels are kept but for virtfleet's own, annotations are not.
    """
    spec: dict[str, Any] = dict(source.get("spec") or {})
    spec.pop("restartRequestedAt", None)
    if spec.get("powerState") == PowerState.PAUSED:
        del spec["powerState"]
    _put_grace_back(spec, source)
    if disks := spec.get("disks"):
        spec["disks"] = [_copied(disk, source["metadata"]["name"], full=full) for disk in disks]
    if networks := spec.get("networks"):
        spec["networks"] = [{key: value for key, value in card.items() if key != "macAddress"} for card in networks]
    if start is not None:
        spec.pop("powerState", None)
        spec["runStrategy"] = _strategy(spec, start=start)
    return {"apiVersion": API_VERSION, "kind": "VirtualMachine", "metadata": _metadata(source, name), "spec": spec}


def plan_clone(manifest: Object) -> Change:
    """Return what is to be waited for once the manifest is created."""
    spec = manifest["spec"]
    off = spec.get("runStrategy") == RunStrategy.HALTED or spec.get("powerState") == PowerState.STOPPED
    goal = PrintableStatus.STOPPED if off else PrintableStatus.RUNNING
    return Change({}, "", frozenset({goal}))


def describe_created(manifest: Object, dry_run: str) -> str:
    """Say that it was created, as kubectl does."""
    suffix = {"client": " (dry run)", "server": " (server dry run)"}.get(dry_run, "")
    return f"{_resource_name(manifest)} created{suffix}"


def render(manifest: Object, output: str) -> str:
    """Return the object as `-o yaml`, `-o json` or `-o name` prints it; like kubectl without managed fields."""
    if output == "name":
        return _resource_name(manifest)
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
    shown = {**manifest, "metadata": metadata}
    if output == "json":
        return json.dumps(shown, indent=4)
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip()


def check_names(source: str, name: str) -> None:
    """Refuse to make a machine of itself: CliError."""
    if source == name:
        raise CliError(f"A machine cannot be a clone of itself; choose another name than {name}.")


def _resource_name(manifest: Object) -> str:
    return f"virtualmachine.{GROUP}/{manifest['metadata']['name']}"


def _metadata(source: Object, name: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": source["metadata"].get("namespace", "default")}
    labels = source["metadata"].get("labels") or {}
    if kept := {key: value for key, value in labels.items() if key.partition("/")[0] != GROUP}:
        metadata["labels"] = kept
    return metadata


def _copied(disk: Object, source: str, *, full: bool) -> dict[str, Any]:
    copy: dict[str, Any] = {"disk": {"virtualMachine": source, "name": disk["name"]}}
    if full:
        copy["clone"] = str(Clone.FULL)
    return {**disk, "source": copy}


def _strategy(spec: Object, *, start: bool) -> str:
    """Return the run strategy of a clone that is to run, or to be off until it is started."""
    before = RunStrategy(spec.get("runStrategy", RunStrategy.ALWAYS))
    if not start:
        return str(RunStrategy.HALTED)
    return str(RunStrategy.ALWAYS if before is RunStrategy.HALTED else before)


def _put_grace_back(spec: dict[str, Any], source: Object) -> None:
    """Leave out the grace period of 0 that `stop --force` has set for the source."""
    grace = (source["metadata"].get("annotations") or {}).get(GRACE_ANNOTATION, "")
    if grace.isascii() and grace.isdigit() and len(grace) <= _MAX_GRACE_DIGITS:
        spec["terminationGracePeriodSeconds"] = int(grace)
