"""One daemon on one libvirtd for all tests here: libvirt takes only one event loop in a process's life."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from machine_rig import Rig
from virtfleet_dev.node import Node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/libvirt" in item.nodeid and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rig(libvirt_node: Node) -> AsyncIterator[Rig]:
    made = Rig(libvirt_node)
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def tidy(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Leave nothing of a test that failed to the next one."""
    yield
    if "rig" in request.fixturenames:
        await request.getfixturevalue("rig").tidy()
