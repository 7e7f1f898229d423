"""`make bench`: measure, print, and keep the figures in benchmarks/results/. docs/performance.md quotes a run."""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.scale import Load, measure_daemon, measure_operator
from benchmarks.start import Starts, measure_starts

from virtfleet_dev.cluster import Cluster

RESULTS: Final = Path(__file__).with_name("results")
ROUNDS: Final = 15
OPERATOR_NODES: Final = 6
"""198 machines each (see scale.OVERCOMMIT): room for a thousand."""

TEST_DRIVER: Final = "test:///default"


def main() -> None:
    """Run every benchmark, each on a cluster of its own."""
    starts = _on_cluster(1, None, lambda cluster: asyncio.run(measure_starts(cluster, ROUNDS)))
    _print_starts(starts)
    operator = _on_cluster(OPERATOR_NODES, TEST_DRIVER, lambda cluster: asyncio.run(measure_operator(cluster)))
    _print_loads("operator", operator)
    daemon = _on_cluster(1, TEST_DRIVER, lambda cluster: asyncio.run(measure_daemon(cluster)))
    _print_loads("daemon", daemon)
    _keep({"starts": vars(starts), "operator": _rows(operator), "daemon": _rows(daemon)})


def _on_cluster(nodes: int, libvirt_uri: str | None, measure: Callable[[Cluster], Any]) -> Any:
    with tempfile.TemporaryDirectory(prefix="virtfleet-bench-") as folder:
        cluster = Cluster(Path(folder) / "cluster", libvirt_uri=libvirt_uri)
        try:
            cluster.up(nodes)
            return measure(cluster)
        finally:
            cluster.remove()


def _print_starts(starts: Starts) -> None:
    rounds = len(starts.product)
    print(f"\nFrom create to Running, {rounds} machines with a linked clone and a network card, one after the other")
    for name, seconds in (("virtfleet", starts.product), ("libvirt createXML", starts.libvirt)):
        print(f"  {name:18} median {median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s")
    print(f"  ratio of medians   {starts.ratio:.2f}")
    for what, count in sorted(starts.writes.items()):
        print(f"  writes a machine   {count / rounds:.2f} {what}")


def _print_loads(name: str, loads: Iterable[Load]) -> None:
    print(f"\nThe {name} on libvirt's test driver")
    for load in loads:
        cost = f"{load.cost.rss_mib:6.1f} MiB resident, {load.cost.cpu_seconds:6.1f} s of CPU so far"
        print(f"  {load.machines:5} machines  {cost}, the last of them Running after {load.seconds:.1f} s")


def _rows(loads: Iterable[Load]) -> list[dict[str, Any]]:
    return [asdict(load) for load in loads]


def _keep(figures: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}.json"
    path.write_text(json.dumps(figures, indent=1))
    print(f"\nKept in {path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    begin = time.monotonic()
    main()
    print(f"Took {time.monotonic() - begin:.0f} s")
