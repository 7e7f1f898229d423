"""An operator with two nodes, for all tests of a module."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from operator_rig import Rig, rig
from virtfleet_dev.control_plane import ControlPlane


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("operator")) as built:
        await built.start_operator()
        await built.add_node("node-a")
        await built.add_node("node-b")
        yield built
