"""A host with NUMA cells, an IOMMU and devices to pass through, in an emulated machine (ADR 0026).

What is in `inner` runs in that host, against its libvirtd, and never here.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from inner_tests import InnerTests
from virtfleet_dev.nested_host import NestedHost

collect_ignore = ["inner"]
_HOST = pytest.StashKey[NestedHost]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run no inner test again: its outcome is that of the one run in the nested host."""
    for item in items:
        if "inner" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.flaky(reruns=0))


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the host with its last test: those of other folders shall have this machine for themselves."""
    if nextitem is None or "nested_host" not in getattr(nextitem, "fixturenames", ()):
        host = item.config.stash.get(_HOST, None)
        if host is not None:
            host.down()


@pytest.fixture(scope="session")
def nested_host(scratch: Path, pytestconfig: pytest.Config) -> Iterator[NestedHost]:
    """The host, up, with the checkout at its own path."""
    host = pytestconfig.stash[_HOST] = NestedHost(scratch / "nested")
    try:
        host.up()
        yield host
    finally:
        host.down()


@pytest.fixture(scope="session")
def inner(nested_host: NestedHost, request: pytest.FixtureRequest) -> Iterator[InnerTests]:
    """The inner tests that this run has chosen, on their way."""
    chosen = [item.callspec.params["case"] for item in request.session.items if "inner" in item.fixturenames]
    running = InnerTests(nested_host, chosen)
    yield running
    running.stop()
