"""A Git repository, and what Flux and Argo CD do with it: these classes call git and kubectl in the same order."""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from virtfleet_api.kinds import KINDS
from virtfleet_api.names import GROUP
from virtfleet_dev.kubectl import Kubectl, KubectlError
from virtfleet_dev.paths import checkout

NAMESPACE = "default"
EXAMPLES = {path.name: path.read_text() for path in sorted((checkout() / "examples").glob("*.yaml"))}
INSTANCE = "app.kubernetes.io/instance"
"""The label by which Argo CD knows what it has made."""

Manifest = dict[str, Any]
Reference = tuple[str, str]
"""Resource with its group, and name."""


def ours(kind: str) -> str:
    """Return the resource of one of our kinds as kubectl takes it; other kinds as they are."""
    return next((f"{one.plural}.{GROUP}" for one in KINDS if one.__name__ == kind), kind)


def of_ours(found: Iterable[Manifest]) -> list[Manifest]:
    """Return what is of our kinds."""
    return [one for one in found if one["apiVersion"].startswith(f"{GROUP}/")]


class Repository:
    """A bare repository, with a clone that people commit in."""

    def __init__(self, folder: Path) -> None:
        self.bare, self._work = folder / "fleet.git", folder / "work"
        _git(folder, "init", "-q", "--bare", "-b", "main", str(self.bare))
        _git(folder, "clone", "-q", str(self.bare), str(self._work))

    def commit(self, message: str, files: Mapping[str, str | None]) -> None:
        """Write files, remove those that are None, commit and push."""
        for name, text in files.items():
            path = self._work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        _git(self._work, "add", "-A")
        author = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org")
        _git(self._work, *author, "commit", "-q", "--allow-empty", "-m", message)
        _git(self._work, "push", "-q", "origin", "HEAD:main")

    def clone(self, folder: Path) -> Path:
        """Bring a tool's clone to the latest commit."""
        if not folder.exists():
            _git(folder.parent, "clone", "-q", str(self.bare), str(folder))
        _git(folder, "fetch", "-q", "origin")
        _git(folder, "reset", "-q", "--hard", "origin/main")
        return folder


def _git(folder: Path, *words: str) -> None:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert not done.returncode, f"git {' '.join(words)}: {done.stderr}"


def manifests(folder: Path) -> list[Manifest]:
    """Read all manifests of a folder."""
    found: Iterator[Any] = (
        one for path in sorted(folder.rglob("*.yaml")) for one in yaml.safe_load_all(path.read_text())
    )
    return [one for one in found if one]


@dataclass
class _Tool:
    kubectl: Kubectl
    repository: Repository
    folder: Path

    def _diff(self, wanted: Iterable[Manifest], *flags: str) -> str:
        text = yaml.safe_dump_all(wanted)
        done = self.kubectl.attempt("-n", NAMESPACE, "diff", *flags, "-f", "-", stdin=text)
        if done.returncode > 1:  # 1 says that there is a difference
            raise KubectlError(done.stderr)
        return done.stdout

    def prune(self, doomed: Iterable[Reference]) -> None:
        """Delete objects, and wait for nothing: who waits would keep the node of the test from answering."""
        if named := [f"{resource}/{name}" for resource, name in doomed]:
            self.kubectl.run("-n", NAMESPACE, "delete", *named, "--ignore-not-found", "--wait=false")


@dataclass
class Flux(_Tool):
    """kustomize-controller: server-side apply that takes over conflicts, and an inventory of what was applied."""

    inventory: list[Reference] = field(default_factory=list)

    MANAGER = "kustomize-controller"
    _FLAGS = ("--server-side", "--force-conflicts", f"--field-manager={MANAGER}")

    def wanted(self) -> list[Manifest]:
        """Return what the latest commit says."""
        return manifests(self.repository.clone(self.folder))

    def diff(self) -> str:
        """Return what a reconciliation would change."""
        wanted = self.wanted()
        return self._diff(wanted, *self._FLAGS) if wanted else ""

    def reconcile(self) -> str:
        """Make the cluster what the latest commit says; return what that changed of what was there."""
        wanted = self.wanted()
        drift = ""
        if wanted:
            drift = self._diff(wanted, *self._FLAGS)
            self.kubectl.run("-n", NAMESPACE, "apply", *self._FLAGS, "-f", "-", stdin=yaml.safe_dump_all(wanted))
        applied = [(ours(one["kind"]), one["metadata"]["name"]) for one in wanted]
        self.prune(one for one in reversed(self.inventory) if one not in applied)
        self.inventory = applied
        return drift


@dataclass
class ArgoCD(_Tool):
    """Argo CD: client-side apply, and a label on all that it has made."""

    application: str = "fleet"

    def wanted(self) -> list[Manifest]:
        """Return what the latest commit says, labelled."""
        found = manifests(self.repository.clone(self.folder))
        for one in found:
            one["metadata"].setdefault("labels", {})[INSTANCE] = self.application
        return found

    def diff(self) -> str:
        """Return what a synchronization would change; empty is Synced, else OutOfSync."""
        wanted = self.wanted()
        return self._diff(wanted) if wanted else ""

    def sync(self) -> None:
        """Make the cluster what the latest commit says, with pruning."""
        wanted = self.wanted()
        if wanted:
            self.kubectl.run("-n", NAMESPACE, "apply", "-f", "-", stdin=yaml.safe_dump_all(wanted))
        keep = {(ours(one["kind"]), one["metadata"]["name"]) for one in wanted}
        self.prune(reference for reference in self.tracked() if reference not in keep)

    def tracked(self) -> list[Reference]:
        """Return all that has the label, of our kinds, Secrets and claims."""
        resources = ",".join([*(ours(kind.__name__) for kind in KINDS), "secrets", "persistentvolumeclaims"])
        selector = f"{INSTANCE}={self.application}"
        text = self.kubectl.run("-n", NAMESPACE, "get", resources, "-l", selector, "-o", "json")
        return [(ours(one["kind"]), one["metadata"]["name"]) for one in json.loads(text)["items"]]


def writers_of_spec(found: Manifest) -> set[str]:
    """Return the field managers of an object's spec."""
    entries = found["metadata"].get("managedFields", [])
    return {entry["manager"] for entry in entries if "f:spec" in entry.get("fieldsV1", {})}
