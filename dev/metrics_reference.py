"""`python dev/metrics_reference.py write|check`: docs/reference/metrics.md, from the metrics of operator and daemon.

It belongs to no package: operator and node daemon know nothing of each other.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.registry import Collector

from virtfleet_node.agent.metrics import Sources, register
from virtfleet_node.agent.queue_metrics import QueueMetrics
from virtfleet_node.api.metrics import ApiMetrics
from virtfleet_operator.enrolment.server import build_answers
from virtfleet_operator.metrics import Metrics

PAGE: Final = Path(__file__).parents[1] / "docs/reference/metrics.md"

_UNITS: Final = {
    "timestamp_seconds": "s since 1970",
    "time_seconds": "s since 1970",
    "seconds": "s",
    "bytes": "bytes",
    "hertz": "Hz",
}
_HEAD: Final = """\
<!-- Generated from the operator's and the node daemon's own metrics by `make generate`; do not edit. -->
# Metrics

What the operator and the node daemons tell Prometheus. [How to scrape them](../howto/monitoring.md), with dashboards
and alerts. Names and labels are API: they are changed as the fields of the kinds are.

A histogram has the series `<name>_bucket`, `<name>_sum` and `<name>_count`. Counters begin again at 0 with their
process, and those of a machine with its guest. Whatever is about a machine has its labels `namespace` and `machine`:
scrape with `honor_labels`, or Prometheus renames the first.
"""
_OPERATOR: Final = """
## Operator

At `/metrics` of `metrics.port`. Objects are counted when they are asked for; an operator that does not lead counts
none.
"""
_NODE: Final = """
## Node daemon

At `/metrics` of the address that `metrics` of its configuration file names; without it, nowhere. Use of CPUs and cards
is measured every 10 s, disks' input and output every 30 s, whoever asks; nothing is asked of guests.
"""
_TABLE: Final = "\n| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n"


@dataclass(frozen=True, order=True)
class Described:
    """One metric."""

    name: str
    type: str
    labels: tuple[str, ...]
    text: str

    @property
    def unit(self) -> str:
        """Return the unit that the name ends with; nothing for what is merely counted."""
        bare = self.name.removesuffix("_total")
        return next((unit for ending, unit in _UNITS.items() if bare.endswith(f"_{ending}")), "")


def describe_operator() -> list[Described]:
    """Return the operator's metrics."""
    registry = Metrics().registry
    build_answers(registry)
    return sorted(_describe(registry))


def describe_node() -> list[Described]:
    """Return a node daemon's metrics."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    ApiMetrics(registry)
    QueueMetrics(registry)
    register(registry, Sources())
    return sorted(_describe(registry))


def render() -> str:
    """Return the page."""
    return _HEAD + _OPERATOR + _render(describe_operator()) + _NODE + _render(describe_node())


def _describe(registry: CollectorRegistry) -> Iterator[Described]:
    """Yield what the registry tells of; the library keeps names of labels to itself while there are no values."""
    collectors: list[Collector] = list(registry._collector_to_names)  # noqa: SLF001
    for collector in collectors:
        for found in (collector,) if hasattr(collector, "_labelnames") else collector.collect():
            kind, name, text = (_first(found, word) for word in ("type", "name", "documentation"))
            labels = tuple(vars(found)["_labelnames"])
            yield Described(f"{name}_total" if kind == "counter" else name, kind, labels, text)


def _first(found: object, word: str) -> str:
    return str(getattr(found, f"_{word}", None) or getattr(found, word))


def _render(metrics: list[Described]) -> str:
    rows = (
        f"| `{found.name}` | {found.type} | {found.unit} | {', '.join(f'`{label}`' for label in found.labels)} "
        f"| {found.text} |\n"
        for found in metrics
    )
    return _TABLE + "".join(rows)


def main() -> None:
    """Run the command line; exit status 1 says that the page is out of date."""
    parser = argparse.ArgumentParser(description="The reference page of metrics.")
    parser.add_argument("act", choices=["write", "check"], help="write it, or say whether it is out of date")
    if parser.parse_args().act == "write":
        PAGE.write_text(render(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != render():
        sys.exit("docs/reference/metrics.md is not what the metrics say: run `make generate` and commit it")


if __name__ == "__main__":
    main()
