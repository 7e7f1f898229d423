"""kubectl as a program, for what a user would do with it."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

COMMAND_SECONDS = 120.0  # longer than any single kubectl call may take on a busy machine


class KubectlError(Exception):
    """kubectl refused; the text is what it printed."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl with a kubeconfig."""

    binary: Path
    kubeconfig: Path

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed; KubectlError with its complaint."""
        done = self.attempt(*arguments, stdin=stdin)
        if done.returncode:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def attempt(self, *arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run kubectl and return how it went."""
        return subprocess.run(
            [self.binary, "--kubeconfig", self.kubeconfig, *arguments],
            input=stdin,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def apply(self, *manifests: Mapping[str, Any] | Path, namespace: str = "default") -> str:
        """Apply manifests, given as objects or as files."""
        texts = [m.read_text() if isinstance(m, Path) else yaml.safe_dump(dict(m)) for m in manifests]
        return self.run("-n", namespace, "apply", "-f", "-", stdin="\n---\n".join(texts))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """Return an object, or None when there is none."""
        text = self.run("-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found")
        found: dict[str, Any] | None = json.loads(text) if text.strip() else None
        return found

    def list(self, kind: str, *arguments: str) -> "list[dict[str, Any]]":
        """Return all objects of a kind, in every namespace."""
        items: list[dict[str, Any]] = json.loads(self.run("get", kind, "-A", "-o", "json", *arguments))["items"]
        return items
