"""The chart's objects, found by what they are."""

from functools import cache
from pathlib import Path
from typing import Any

from virtfleet_dev.helm import Helm, read_manifests

FULL = Path(__file__).parents[1] / "chart" / "full.yaml"
"""Values that turn everything on."""

OLD = ("--kube-version", "v1.20.2")
NEW = ("--kube-version", "v1.34.0")


class Rendered:
    """What a chart would install."""

    def __init__(self, helm: Helm, *options: str, folder: Path | None = None) -> None:
        self.objects = read_manifests(_render(helm, options, folder))

    def find(self, kind: str, name: str) -> dict[str, Any]:
        """Return the one object."""
        found = [one for one in self.objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
        assert len(found) == 1, f"{len(found)} of {kind} {name}"
        return found[0]

    def names(self, kind: str) -> set[str]:
        """Return the names of all objects of a kind."""
        return {one["metadata"]["name"] for one in self.objects if one["kind"] == kind}

    def container(self, kind: str, name: str, container: str) -> dict[str, Any]:
        """Return a container of a workload."""
        pod = self.find(kind, name)["spec"]["template"]["spec"]
        return next(one for one in pod["containers"] if one["name"] == container)

    @property
    def pods(self) -> dict[str, dict[str, Any]]:
        """Return the spec of every pod, by its owner's kind and name."""
        found = {}
        for one in self.objects:
            spec = one if one["kind"] == "Pod" else one.get("spec", {}).get("template", {})
            if "containers" in spec.get("spec", {}):
                found[f"{one['kind']} {one['metadata']['name']}"] = spec["spec"]
        return found


@cache
def _render(helm: Helm, options: tuple[str, ...], folder: Path | None) -> str:
    return helm.render(*options, folder=folder)
