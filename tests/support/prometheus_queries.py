"""What alerts and dashboards ask Prometheus for, and which metrics there are to ask for."""

import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml

from virtfleet_dev.paths import checkout
from virtfleet_dev.prometheus import binaries

RULES = checkout() / "charts/virtfleet/files/rules.yaml"
DASHBOARDS = checkout() / "charts/virtfleet/files/dashboards"
_OWN = {"ALERTS"}
"""Prometheus' own."""
_METRIC = re.compile(r"\b(?:virtfleet|process)_[a-z_]+\b")
_SELECTOR = re.compile(r"\b((?:virtfleet|process)_[a-z_]+|ALERTS)\{([^}]*)\}")


def promtool(*words: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    command = [binaries()["promtool"], *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@cache
def reference() -> dict[str, frozenset[str]]:
    """Return the labels of each series that the reference knows."""
    page = (checkout() / "docs/reference/metrics.md").read_text()
    known: dict[str, frozenset[str]] = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]* \| ([^|]*) \|", page, re.MULTILINE):
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        own = frozenset(re.findall(r"`(\w+)`", labels))
        known |= {name + ending: own | ({"le"} if ending == "_bucket" else set()) for ending in endings}
    return known


def unknown(query: str) -> list[str]:
    """Return the metrics, and the labels of metrics, that a query asks for and that do not exist."""
    target = {"node", "job", "instance"}  # labels that Prometheus is told to add, see docs/howto/monitoring.md
    found = [name for name in _METRIC.findall(query) if name not in reference()]
    for name, selectors in _SELECTOR.findall(query):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors)) if name not in _OWN else set()
        found += [f"{name}{{{label}}}" for label in sorted(labels - target - reference().get(name, frozenset()))]
    return found


def complaints(queries: Iterable[str], folder: Path) -> str:
    """Return what Prometheus' parser says against queries; nothing if it takes them all."""
    rules = [{"record": f"test:query:{number}", "expr": query} for number, query in enumerate(queries)]
    path = folder / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = promtool("check", "rules", path)
    return "" if done.returncode == 0 else done.stdout + done.stderr
