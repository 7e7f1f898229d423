"""A new leader tells the nodes what its predecessor told them, and nothing else: guests do not notice it."""

from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from operator_rig import Rig, rig
from virtfleet_api.report import NetworkReport
from virtfleet_dev.control_plane import ControlPlane

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS: dict[str, Any] = {
    "ovn": {"northbound": "ssl:192.0.2.1:6641", "southbound": "ssl:192.0.2.1:6642"},
    "network": {"operatorAddresses": ["192.0.2.9"]},
}
INSTRUCTIONS = ("put_machine", "put_image", "put_pools", "put_network", "put_snapshot")
MACHINE: dict[str, Any] = {
    "className": "small",
    "disks": [
        {"name": "root", "source": {"image": {"name": "guest"}}},
        {"name": "data", "size": "1Gi", "pool": "fast", "source": {"blank": {}}},
    ],
    "networks": [{"name": "eth0", "switch": "floor", "vlan": 101, "securityGroups": ["web"]}],
}


class Heard:
    """What a node is told, in order, by what it is about."""

    def __init__(self, fleet: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.documents: defaultdict[str, list[Any]] = defaultdict(list)
        daemon = fleet.nodes["node-a"].daemon
        for name in INSTRUCTIONS:
            monkeypatch.setattr(daemon, name, self._listen(name, getattr(daemon, name)))

    def _listen(self, name: str, take: Any) -> Any:
        async def listen(document: Any) -> Any:
            self.documents[f"{name} {getattr(document, 'uid', '')}"].append(document)
            return await take(document)

        return listen


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("succession")) as built:
        await built.start_operator("one", **SETTINGS)
        daemon = (await built.add_node("node-a")).daemon
        daemon.network = NetworkReport(connected=True, datapath="system", tunnel_address="198.51.100.1")
        daemon.journal.publish_node(daemon.node_report())
        yield built
        await built.clear("VMSnapshot", "VirtualMachine", "VMImage", "VMClass")
        await built.clear("SecurityGroup", "VirtualSwitch")


async def test_a_new_leader_tells_nothing_new(fleet: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(fleet, monkeypatch)
    await fleet.patch("VMNode", "node-a", {"spec": {"pools": [{"name": "fast", "path": "/var/lib/fast"}]}})
    uplink = {"interface": "bond0", "vlans": "100-199"}
    subnet = {"cidr": "10.71.0.0/24"}
    await fleet.create("VirtualSwitch", "floor", {"type": "Uplink", "uplink": uplink, "subnet": subnet})
    await fleet.create("SecurityGroup", "web", {"ingress": [{"ports": [{"port": 80}]}]})
    await fleet.create("VMClass", "small", {"cpu": {"cores": 2, "shares": 2000}, "memory": {"guest": "256Mi"}})
    await fleet.create("VMImage", "guest", {"source": {"http": {"url": "http://images.virtfleet.test/guest.qcow2"}}})
    await fleet.create("VirtualMachine", "web", MACHINE)
    await fleet.wait_word("web", "Running")
    await fleet.create("VMSnapshot", "before", {"virtualMachine": "web"})
    await fleet.eventually(lambda: fleet.is_ready("VMSnapshot", "before"), "the snapshot is ready")
    last = {about: documents[-1] for about, documents in heard.documents.items()}
    assert {about.split()[0] for about in last} == set(INSTRUCTIONS)
    heard.documents.clear()
    await fleet.kill_operator("one")
    await fleet.start_operator("two", **SETTINGS)
    made = await fleet.create_machine("after")
    await fleet.wait_word("after", "Running")
    new = heard.documents.pop(f"put_machine {made['metadata']['uid']}")
    assert new, "the new leader is at work"
    again = {"put_pools ", "put_network "}
    assert again <= set(heard.documents), "it speaks to the node"
    told = [(about, one) for about, documents in heard.documents.items() for one in documents]
    assert [(about, one) for about, one in told if one != last[about]] == []
