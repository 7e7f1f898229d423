"""The Services of several operators lead to the one that leads, from when it serves to when it ends."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from operator_rig import SYSTEM, Operator, Rig, rig
from virtfleet_dev.control_plane import ControlPlane, free_port
from virtfleet_operator.kube.endpoints import PORT_NAME, ServedService, ServiceEndpoints
from virtfleet_operator.kube.errors import NotFoundError
from virtfleet_operator.kube.paths import ENDPOINTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICE = "virtfleet-operator"
PATH = ENDPOINTS.object(SYSTEM, SERVICE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("services")) as built:
        yield built
        await built.client.delete(PATH)


async def start(fleet: Rig, identity: str, address: str, *, wait: bool = True) -> Operator:
    enrolment = {"host": "127.0.0.1", "port": free_port(), "names": ["127.0.0.1"], "service": {"name": SERVICE}}
    return await fleet.start_operator(identity, wait=wait, address=address, enrolment=enrolment)


async def subsets(fleet: Rig) -> list[dict[str, Any]]:
    try:
        return (await fleet.client.get(PATH)).get("subsets") or []
    except NotFoundError:
        return []


async def leads_to(fleet: Rig, address: str) -> bool:
    return [one["ip"] for subset in await subsets(fleet) for one in subset["addresses"]] == [address]


async def test_the_leader_is_what_its_service_leads_to(fleet: Rig) -> None:
    await start(fleet, "one", "192.0.2.1")
    await fleet.eventually(lambda: leads_to(fleet, "192.0.2.1"), "the Service leads to one")
    ports = (await subsets(fleet))[0]["ports"]
    assert [port["name"] for port in ports] == [PORT_NAME]
    assert len(fleet.writes("endpoints", SERVICE)) == 1


async def test_who_waits_to_lead_leaves_the_service_alone(fleet: Rig) -> None:
    two = await start(fleet, "two", "192.0.2.2", wait=False)
    await fleet.eventually(two.waits, "two waits")
    assert await leads_to(fleet, "192.0.2.1")


async def test_a_leader_that_dies_is_replaced_by_who_follows_it(fleet: Rig) -> None:
    await fleet.kill_operator("one")
    await fleet.eventually(lambda: leads_to(fleet, "192.0.2.2"), "the Service leads to two")


async def test_a_leader_that_ends_well_is_led_to_no_more(fleet: Rig) -> None:
    await fleet.stop_operator("two")
    assert await subsets(fleet) == []
    await start(fleet, "three", "192.0.2.3")
    await fleet.eventually(lambda: leads_to(fleet, "192.0.2.3"), "the Service leads to three")


async def test_who_ends_late_does_not_undo_what_the_next_leader_wrote(fleet: Rig) -> None:
    before = await subsets(fleet)
    late = ServiceEndpoints(fleet.client, SYSTEM, "192.0.2.1", (ServedService(SERVICE, before[0]["ports"][0]["port"]),))
    await late.withdraw()
    assert await subsets(fleet) == before


async def test_what_others_have_written_is_corrected(fleet: Rig) -> None:
    port = (await subsets(fleet))[0]["ports"][0]["port"]
    own = ServiceEndpoints(fleet.client, SYSTEM, "192.0.2.3", (ServedService(SERVICE, port),))
    foreign = [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"name": PORT_NAME, "port": 1}]}]
    await fleet.client.patch(PATH, {"subsets": foreign})
    await own.ensure()
    assert await leads_to(fleet, "192.0.2.3")
    version = (await fleet.client.get(PATH))["metadata"]["resourceVersion"]
    await own.ensure()
    assert (await fleet.client.get(PATH))["metadata"]["resourceVersion"] == version
