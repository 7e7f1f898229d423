"""One daemon on the host's libvirtd for all inner tests: libvirt takes only one event loop in a process's life."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from machine_rig import KERNEL, Rig
from this_host import ThisHost, tiny_guest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rig() -> AsyncIterator[Rig]:
    host = ThisHost(Path("/var/lib/virtfleet-test"))
    host.prepare()
    made = Rig(host, images=lambda _: tiny_guest(KERNEL))
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def tidy(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Leave nothing of a test that failed to the next one."""
    yield
    if "rig" in request.fixturenames:
        await request.getfixturevalue("rig").tidy()
