"""helm as a program, for what an administrator would do with it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from virtfleet_dev.paths import cache_dir, checkout

COMMAND_SECONDS = 300.0  # with --wait, longer than an installation may take on a busy machine


class HelmError(Exception):
    """helm refused; the text is what it printed."""


def chart() -> Path:
    """Return the folder of virtfleet's chart."""
    return checkout() / "charts" / "virtfleet"


@dataclass(frozen=True)
class Helm:
    """helm, with a kubeconfig where it is to reach a cluster."""

    binary: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str | Path) -> str:
        """Run helm and return what it printed; HelmError with its complaint."""
        done = self.attempt(*arguments)
        if done.returncode:
            raise HelmError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def attempt(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """Run helm and return how it went. What the user has of repositories and plugins is not used."""
        own = {f"HELM_{name}_HOME": str(cache_dir() / "helm") for name in ("CACHE", "CONFIG", "DATA")}
        where = {"KUBECONFIG": str(self.kubeconfig or os.devnull)}
        return subprocess.run(
            [self.binary, *arguments],
            env={**os.environ, **own, **where},
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def render(self, *options: str, folder: Path | None = None, namespace: str = "virtfleet-system") -> str:
        """Return the manifests of the chart, or of another one's folder; HelmError."""
        return self.run("template", "virtfleet", folder or chart(), "--namespace", namespace, *options)


def read_manifests(text: str) -> list[dict[str, Any]]:
    """Return the objects in a YAML stream."""
    return [found for found in yaml.safe_load_all(text) if found]
