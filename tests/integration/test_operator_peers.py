"""Whom the nodes' firewalls let in: every node of the fleet, from the moment it joins, whoever leads."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from operator_rig import Rig, rig
from virtfleet_api.node_network import NodeNetwork
from virtfleet_api.report import NetworkReport
from virtfleet_dev.control_plane import ControlPlane

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATOR = "192.0.2.9"
SETTINGS = {
    "ovn": {"northbound": "ssl:192.0.2.1:6641", "southbound": "ssl:192.0.2.1:6642"},
    "network": {"operatorAddresses": [OPERATOR]},
}
TUNNELS = {"node-a": "198.51.100.1", "node-b": "198.51.100.2"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("peers")) as built:
        await built.start_operator("one", **SETTINGS)
        yield built
        for node in built.nodes.values():  # one of them is stopped
            await node.stop()
            await node.start()


async def join(fleet: Rig, name: str) -> None:
    """Have a node join whose tunnels end elsewhere than its daemon listens."""
    daemon = (await fleet.add_node(name)).daemon
    daemon.network = NetworkReport(connected=True, datapath="system", tunnel_address=TUNNELS[name])
    daemon.journal.publish_node(daemon.node_report())


async def let_in(fleet: Rig, name: str, *addresses: str) -> None:
    """Wait until a node lets these in beside itself and the operator."""
    wanted = {OPERATOR, "127.0.0.1", *addresses}

    async def so() -> bool:
        network = fleet.nodes[name].daemon.wanted_network
        return network is not None and set(network.peers) == wanted

    await fleet.eventually(so, f"{name} lets in {', '.join(addresses)}", seconds=20)


async def test_a_node_that_joins_is_let_in_by_the_others(fleet: Rig) -> None:
    await join(fleet, "node-a")
    await let_in(fleet, "node-a", TUNNELS["node-a"])
    await join(fleet, "node-b")
    for name in TUNNELS:
        await let_in(fleet, name, *TUNNELS.values())


async def test_a_new_leader_locks_nobody_out_that_it_has_not_heard(fleet: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon of a node is away; its guests are not."""
    daemon, told = fleet.nodes["node-a"].daemon, []
    take = daemon.put_network

    async def put_network(wanted: NodeNetwork) -> NetworkReport:
        told.append(set(wanted.peers))
        return await take(wanted)

    monkeypatch.setattr(daemon, "put_network", put_network)
    await fleet.nodes["node-b"].stop()
    await fleet.kill_operator("one")
    await fleet.start_operator("two", **SETTINGS)

    async def is_told() -> bool:
        return bool(told)

    await fleet.eventually(is_told, "the new leader speaks to the node")
    assert set().union(*told) == set.intersection(*told) == {OPERATOR, "127.0.0.1", *TUNNELS.values()}
