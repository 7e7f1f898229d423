"""Real parts for every tier: an API server, a hypervisor node, a whole cluster. Each is started once and shared.

Properties are tried quickly with every change, thoroughly with HYPOTHESIS_PROFILE=thorough.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from fleet import Fleet
from virtfleet_dev.cluster import Cluster
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_dev.fabric import Fabric, node_name
from virtfleet_dev.node import Node

# No deadline: a shared machine stalls now and then, and that says nothing about the code.
settings.register_profile("quick", deadline=None, max_examples=15)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print in full why tests were run again, so that one that passed then is not forgotten."""
    reports = terminalreporter.getreports("rerun")
    if not reports:
        return
    terminalreporter.write_sep("=", "FAILURES OF TESTS THAT WERE RUN AGAIN", yellow=True)
    for report in reports:
        terminalreporter.write_sep("_", f"{report.nodeid} ({report.when})", yellow=True)
        report.toterminal(terminalreporter._tw)
        for name, content in report.sections:
            terminalreporter.write_sep("-", name)
            terminalreporter.write_line(content.rstrip())


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory of this test run."""
    directory = Path(tempfile.mkdtemp(prefix="virtfleet-test-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def control_plane(scratch: Path) -> Iterator[ControlPlane]:
    """A real API server with virtfleet's CRDs and the operator's rights, and no operator."""
    cluster = Cluster(scratch / "api")
    try:
        cluster.control_plane.up()
        cluster.install_api()
        yield cluster.control_plane
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def libvirt_node(scratch: Path) -> Iterator[Node]:
    """A real libvirtd in a node of its own."""
    fabric = Fabric.of(scratch / "libvirt")
    node = Node(node_name(1), 1, fabric, scratch / "libvirt" / "nodes" / node_name(1))
    try:
        fabric.up()
        node.up()
        yield node
    finally:
        node.down()
        fabric.down()


@pytest.fixture(scope="session")
def cluster(scratch: Path) -> Iterator[Cluster]:
    """A whole cluster with two nodes."""
    running = Cluster(scratch / "cluster")
    try:
        running.up(nodes=2)
        yield running
    finally:
        running.remove()


@pytest.fixture(scope="session")
def fleet(cluster: Cluster) -> Fleet:
    """The whole cluster, with a kernel image to boot machines from."""
    found = Fleet(cluster)
    found.kernel("tiny")
    found.wait_ready("tiny", "vmimage")
    return found
