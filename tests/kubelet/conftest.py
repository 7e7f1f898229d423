"""A cluster with the chart installed, and the figures of how long things took."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from charted import MACHINE, OTHER_CLUSTER, Charted, other_cluster
from virtfleet_dev.containers import Image, Order, build_images
from virtfleet_dev.paths import default_dev_dir
from virtfleet_dev.pod_cluster import PodCluster

_FIGURES: dict[str, float] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, on another cluster, what kills processes of the machine or reads its files."""
    if OTHER_CLUSTER:
        out = [item for item in items if item.get_closest_marker("local_rig")]
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _FIGURES:
        terminalreporter.write_sep("=", "seconds")
        for name, seconds in _FIGURES.items():
            terminalreporter.write_line(f"{seconds:7.1f}  {name}")


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    _FIGURES[what] = time.monotonic() - start


@pytest.fixture(scope="session")
def time_of() -> Callable[[str], object]:
    """Print at the end how long something took."""
    return timed


def build(*targets: str) -> list[Image]:
    with timed(f"images built: {', '.join(targets)}"):
        return build_images(Order(targets=targets), default_dev_dir() / "images", lambda _: None)


@contextmanager
def cluster(folder: Path, *targets: str, bundled: bool = False) -> Iterator[Charted]:
    """Give a cluster that has images and nothing of virtfleet."""
    pods = PodCluster(folder, bundled=bundled)
    try:
        with ThreadPoolExecutor() as beside:
            images = beside.submit(build, *targets)
            with timed("node Ready"):
                pods.up()
            with timed("images loaded"):
                values = pods.load(images.result())
        yield Charted(pods.kubectl, values, pods)
    finally:
        pods.remove()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Charted]:
    """A cluster that has the images and nothing of virtfleet."""
    folder = tmp_path_factory.mktemp("kubelet")
    if OTHER_CLUSTER:
        yield other_cluster(Path(OTHER_CLUSTER), folder)
        return
    with cluster(folder / "cluster", "operator", "node") as found:
        yield found


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Charted]:
    """The chart with libvirtd, QEMU and OVN, on a node that has none of these."""
    folder = tmp_path_factory.mktemp("bundled")
    with cluster(folder / "cluster", "operator", "node", "ovn", "libvirt", bundled=True) as found:
        with timed("chart with libvirt and OVN installed"):
            found.install()
        found.nodes_ready()
        yield found


@pytest.fixture(scope="module")
def charted(bare: Charted) -> Iterator[Charted]:
    """The chart installed, and a machine that runs."""
    with timed("chart installed"):
        bare.install()
    with timed("daemon enrolled"):
        bare.nodes_ready()
    with timed("machine Ready"):
        bare.apply_machine()
        bare.fleet.wait_ready(MACHINE)
    yield bare
    bare.fleet.delete(MACHINE)
    bare.fleet.delete(MACHINE, kind="vmimage")
