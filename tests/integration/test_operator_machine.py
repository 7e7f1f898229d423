"""A machine's life with a real API server, a real operator process and simulated guests."""

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from operator_rig import SPACE, Rig
from virtfleet_api.image import Image
from virtfleet_api.machine import Machine, Run
from virtfleet_node.core.errors import ConflictError
from virtfleet_operator.kube.paths import EVENTS, SECRETS

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDLE_SECONDS = 10.0


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def tidy(fleet: Rig) -> AsyncIterator[None]:
    """Leave no machine to the next test."""
    yield
    await fleet.clear("VirtualMachine", "VMImage", "VMClass")


def instructed(fleet: Rig, uid: str) -> dict[str, list[Machine]]:
    """Return what each node was told about a machine."""
    told = {
        name: [order for order in node.daemon.instructions if isinstance(order, Machine) and order.uid == uid]
        for name, node in fleet.nodes.items()
    }
    return {name: orders for name, orders in told.items() if orders}


async def node_of(fleet: Rig, name: str) -> str:
    found = await fleet.get("VirtualMachine", name)
    assert found
    return str(found["metadata"]["labels"]["virtfleet.io/node"])


async def test_from_create_to_running_the_operator_writes_twice(fleet: Rig) -> None:
    created = await fleet.create_machine("twice")
    await fleet.wait_word("twice", "Running")
    found = await fleet.get("VirtualMachine", "twice")
    assert found
    assert found["spec"] == created["spec"]
    writes = fleet.writes("virtualmachines", "twice")
    assert [(write.verb, write.subresource) for write in writes] == [("patch", ""), ("patch", "status")]
    assert set(writes[0].body) == {"metadata"}
    assert set(writes[0].body["metadata"]) == {"finalizers", "labels", "resourceVersion"}
    assert found["metadata"]["finalizers"] == ["virtfleet.io/machine"]
    assert found["metadata"]["labels"]["virtfleet.io/node"] == found["status"]["nodeName"]
    assert not [key for key in found["metadata"].get("annotations", {}) if "kopf" in key]
    assert len(instructed(fleet, found["metadata"]["uid"])[found["status"]["nodeName"]]) == 1


async def test_a_converged_cluster_is_not_written(fleet: Rig) -> None:
    for number in range(5):
        await fleet.create_machine(f"idle-{number}")
    for number in range(5):
        await fleet.wait_word(f"idle-{number}", "Running")
    await _settled(fleet)
    before = len([write for write in fleet.control_plane.writes() if write.resource != "leases"])
    await asyncio.sleep(IDLE_SECONDS)
    writes = [write for write in fleet.control_plane.writes() if write.resource != "leases"][before:]
    assert writes == []


async def _settled(fleet: Rig) -> None:
    """Wait until the nodes' status, which follows at intervals, counts every machine."""

    async def counted() -> bool:
        nodes = [await fleet.get("VMNode", name) for name in fleet.nodes]
        return sum((node or {})["status"].get("machines", 0) for node in nodes) == 5

    await fleet.eventually(counted, "every machine is counted")


async def test_ten_machines_spread_and_none_is_told_to_two_nodes(fleet: Rig) -> None:
    made = await asyncio.gather(*(fleet.create_machine(f"spread-{number}") for number in range(10)))
    for machine in made:
        await fleet.wait_word(machine["metadata"]["name"], "Running")
    places = [instructed(fleet, machine["metadata"]["uid"]) for machine in made]
    assert all(len(place) == 1 for place in places)
    assert Counter(name for place in places for name in place) == {"node-a": 5, "node-b": 5}


async def test_an_edit_goes_to_the_node_and_its_generation_comes_back(fleet: Rig) -> None:
    made = await fleet.create_machine("edited")
    await fleet.wait_word("edited", "Running")
    changed = await fleet.patch("VirtualMachine", "edited", {"spec": {"cpu": {"cores": 2}}})

    async def observed() -> bool:
        found = await fleet.get("VirtualMachine", "edited")
        return bool(found) and found["status"]["observedGeneration"] == changed["metadata"]["generation"]

    await fleet.eventually(observed, "the edit is observed")
    ((_, orders),) = instructed(fleet, made["metadata"]["uid"]).items()
    assert [order.hardware.vcpus for order in orders] == [1, 2]


@pytest.mark.parametrize(
    ("change", "word", "run"),
    [
        ({"runStrategy": "Halted"}, "Stopped", Run.STOPPED),
        ({"powerState": "Paused"}, "Paused", Run.PAUSED),
        ({"runStrategy": "Manual", "powerState": "Stopped"}, "Stopped", Run.STOPPED),
    ],
)
async def test_the_state_asked_for_is_reached_and_left_again(
    fleet: Rig, change: dict[str, Any], word: str, run: Run
) -> None:
    made = await fleet.create_machine("power")
    await fleet.wait_word("power", "Running")
    await fleet.patch("VirtualMachine", "power", {"spec": change})
    await fleet.wait_word("power", word)
    await fleet.patch("VirtualMachine", "power", {"spec": {"runStrategy": "Always", "powerState": None}})
    await fleet.wait_word("power", "Running")
    ((_, orders),) = instructed(fleet, made["metadata"]["uid"]).items()
    assert [order.run for order in orders] == [Run.RUNNING, run, Run.RUNNING]


async def test_a_deleted_machine_leaves_its_node_and_then_the_cluster(fleet: Rig) -> None:
    made = await fleet.create_machine("deleted")
    await fleet.wait_word("deleted", "Running")
    node = fleet.nodes[await node_of(fleet, "deleted")]
    await fleet.delete("VirtualMachine", "deleted")
    await fleet.wait_gone("VirtualMachine", "deleted")
    assert made["metadata"]["uid"] not in node.daemon.reports
    ((_, orders),) = instructed(fleet, made["metadata"]["uid"]).items()
    assert [order.run for order in orders] == [Run.RUNNING, Run.ABSENT]


async def test_a_machine_that_was_never_bound_goes_at_once(fleet: Rig) -> None:
    made = await fleet.create_machine("nowhere", nodeSelector={"moon": "far-side"})
    await fleet.wait_word("nowhere", "Unschedulable")
    await fleet.delete("VirtualMachine", "nowhere")
    await fleet.wait_gone("VirtualMachine", "nowhere")
    assert instructed(fleet, made["metadata"]["uid"]) == {}


async def test_room_that_comes_free_is_used(fleet: Rig) -> None:
    await fleet.create_machine("large-1", memory={"guest": "12Gi"})
    await fleet.create_machine("large-2", memory={"guest": "12Gi"})
    await fleet.wait_word("large-1", "Running")
    await fleet.wait_word("large-2", "Running")
    await fleet.create_machine("large-3", memory={"guest": "12Gi"})
    await fleet.wait_word("large-3", "Unschedulable")
    scheduled = await fleet.condition("VirtualMachine", "large-3", "Scheduled")
    assert "with too little free memory" in scheduled["message"]
    await fleet.delete("VirtualMachine", "large-1")
    await fleet.wait_word("large-3", "Running")


async def test_a_reservation_that_a_class_raises_beyond_the_node_waits_for_room(fleet: Rig) -> None:
    """A node has 16 GHz."""
    cpu = {"cores": 4, "reservation": "6GHz"}
    await fleet.create("VMClass", "reserving", {"cpu": cpu, "memory": {"guest": "1Gi"}, "updates": "Live"})
    made = await fleet.create("VirtualMachine", "grows", {"className": "reserving"})
    await fleet.wait_word("grows", "Running")
    node = await node_of(fleet, "grows")
    beside = {"cpu": {"cores": 8, "reservation": "9GHz"}, "nodeSelector": {"kubernetes.io/hostname": node}}
    await fleet.create_machine("beside", **beside)
    await fleet.wait_word("beside", "Running")
    await fleet.create_machine("third", **beside)
    await fleet.wait_word("third", "Unschedulable")
    scheduled = await fleet.condition("VirtualMachine", "third", "Scheduled")
    assert "1 with too little unreserved CPU" in scheduled["message"]
    await fleet.patch("VMClass", "reserving", {"spec": {"cpu": {"cores": 4, "reservation": "8GHz"}}})

    async def refused() -> bool:
        said = await fleet.condition("VirtualMachine", "grows", "Synchronized")
        return said.get("reason") == "ReservationRefused" and "7GHz" in said["message"]

    def told() -> int:
        return instructed(fleet, made["metadata"]["uid"])[node][-1].hardware.scheduling.reservation_hz

    await fleet.eventually(refused, "the machine says that its reservation does not fit")
    assert told() == 6 * 10**9
    assert await fleet.is_ready("VirtualMachine", "grows")
    await fleet.delete("VirtualMachine", "third")
    await fleet.delete("VirtualMachine", "beside")

    async def allocated() -> bool:
        found = await fleet.get("VMNode", node)
        return bool(found) and found["status"]["allocated"].get("reserved") == "8GHz"

    await fleet.eventually(allocated, "the reservation is kept once there is room")
    assert told() == 8 * 10**9


async def test_a_machine_waits_for_its_class_and_follows_it(fleet: Rig) -> None:
    made = await fleet.create("VirtualMachine", "classy", {"className": "small"})

    async def waits() -> bool:
        return "VMClass" in (await fleet.condition("VirtualMachine", "classy", "Ready")).get("message", "")

    await fleet.eventually(waits, "the machine says that its class is missing")
    assert instructed(fleet, made["metadata"]["uid"]) == {}
    await fleet.create("VMClass", "small", {"cpu": {"cores": 2}, "memory": {"guest": "256Mi"}})
    await fleet.wait_word("classy", "Running")
    assert await fleet.is_ready("VMClass", "small")


async def test_a_machine_does_not_grow_beyond_its_node(fleet: Rig) -> None:
    await fleet.create("VMClass", "growing", {"memory": {"guest": "1Gi"}, "updates": "Live"})
    made = await fleet.create("VirtualMachine", "grown", {"className": "growing"})
    await fleet.wait_word("grown", "Running")
    node = await node_of(fleet, "grown")

    async def says(reason: str) -> bool:
        return (await fleet.condition("VirtualMachine", "grown", "Synchronized")).get("reason") == reason

    await fleet.patch("VMClass", "growing", {"spec": {"memory": {"guest": "900Gi"}}})
    await fleet.eventually(lambda: says("NodeFull"), "the machine says that its node is full")
    said = (await fleet.condition("VirtualMachine", "grown", "Synchronized"))["message"]
    assert f"spec.memory.guest: '900Gi' is more than node {node} has room for: write at most" in said
    assert await fleet.word("grown") == "Running"
    await fleet.patch("VMClass", "growing", {"spec": {"memory": {"guest": "2Gi"}}})
    await fleet.eventually(lambda: says("Synchronized"), "the machine grows as far as there is room")
    told = instructed(fleet, made["metadata"]["uid"])[node]
    assert [order.hardware.memory_bytes >> 30 for order in told] == [1, 2]


async def test_a_machine_waits_for_its_secret(fleet: Rig) -> None:
    spec = {"memory": {"guest": "256Mi"}, "cloudInit": {"secretRef": {"name": "seed"}}}
    made = await fleet.create("VirtualMachine", "seeded", spec)

    async def waits() -> bool:
        return "seed" in (await fleet.condition("VirtualMachine", "seeded", "Ready")).get("message", "")

    await fleet.eventually(waits, "the machine says that its Secret is missing")
    data = {"userData": base64.b64encode(b"#cloud-config\n").decode()}
    await fleet.client.create(SECRETS.collection(SPACE), {"metadata": {"name": "seed"}, "data": data})
    try:
        await fleet.wait_word("seeded", "Running")
    finally:
        await fleet.client.delete(SECRETS.object(SPACE, "seed"))
    ((_, orders),) = instructed(fleet, made["metadata"]["uid"]).items()
    assert orders[0].cloud_init
    assert orders[0].cloud_init.user_data == "#cloud-config\n"


async def test_an_invalid_machine_says_why_and_runs_once_it_is_repaired(fleet: Rig) -> None:
    made = await fleet.create("VirtualMachine", "broken", {"runStrategy": "Always"})
    await fleet.wait_word("broken", "Invalid")
    ready = await fleet.condition("VirtualMachine", "broken", "Ready")
    assert ready["reason"] == "Invalid"
    assert "spec.memory.guest" in ready["message"]
    assert instructed(fleet, made["metadata"]["uid"]) == {}
    await fleet.patch("VirtualMachine", "broken", {"spec": {"memory": {"guest": "256Mi"}}})
    await fleet.wait_word("broken", "Running")


IMAGE = {"source": {"http": {"url": "http://images.example.org/debian.qcow2"}}}


async def test_an_image_is_kept_while_it_has_users_and_removed_after(fleet: Rig) -> None:
    image = await fleet.create("VMImage", "debian", IMAGE)
    await fleet.eventually(lambda: fleet.is_ready("VMImage", "debian"), "the image is ready")
    uid = image["metadata"]["uid"]
    assert len([node for node in fleet.nodes.values() if uid in node.daemon.images]) == 1
    disks = [{"name": "root", "source": {"image": {"name": "debian"}}}]
    for name in ("linked-1", "linked-2"):
        await fleet.create_machine(name, disks=disks)
    for name in ("linked-1", "linked-2"):
        await fleet.wait_word(name, "Running")
    assert all(uid in node.daemon.images for node in fleet.nodes.values())
    for node in fleet.nodes.values():
        orders = [order for order in node.daemon.instructions if _concerns(order, uid)]
        assert isinstance(orders[0], Image), "the image comes before the machine that is made from it"
    await fleet.delete("VMImage", "debian")

    async def blocked() -> bool:
        return "2 still do" in (await fleet.condition("VMImage", "debian", "Ready")).get("message", "")

    await fleet.eventually(blocked, "the image says that it is in use")
    assert all(uid in node.daemon.images for node in fleet.nodes.values())
    for name in ("linked-1", "linked-2"):
        await fleet.delete("VirtualMachine", name)
    await fleet.wait_gone("VMImage", "debian")
    assert not any(uid in node.daemon.images for node in fleet.nodes.values())


def _concerns(order: Machine | Image, image_uid: str) -> bool:
    return order.uid == image_uid if isinstance(order, Image) else image_uid in order.image_uids()


async def test_a_label_that_somebody_removes_does_not_start_the_machine_twice(fleet: Rig) -> None:
    made = await fleet.create_machine("unlabelled")
    await fleet.wait_word("unlabelled", "Running")
    node = await node_of(fleet, "unlabelled")
    for label in (None, next(name for name in fleet.nodes if name != node)):
        change = {"metadata": {"labels": {"virtfleet.io/node": label}}}
        await fleet.patch("VirtualMachine", "unlabelled", change)

        async def restored() -> bool:
            found = await fleet.get("VirtualMachine", "unlabelled")
            return bool(found) and found["metadata"].get("labels", {}).get("virtfleet.io/node") == node

        await fleet.eventually(restored, "the binding is restored")
    assert instructed(fleet, made["metadata"]["uid"]).keys() == {node}


async def test_a_node_that_reports_what_is_not_its_own_changes_nothing(fleet: Rig) -> None:
    made = await fleet.create_machine("victim")
    await fleet.wait_word("victim", "Running")
    node = await node_of(fleet, "victim")
    liar = next(fleet.nodes[name] for name in fleet.nodes if name != node)
    unknown = "00000000-0000-4000-8000-000000000001"
    uid = made["metadata"]["uid"]
    before = await fleet.get("VirtualMachine", "victim")
    liar.daemon.invent(uid, SPACE, "victim")
    liar.daemon.invent(unknown, SPACE, "nobody")

    async def shown() -> bool:
        found = await fleet.get("VMNode", liar.name)
        return bool(found) and set(found["status"].get("orphans", [])) == {uid, unknown}

    await fleet.eventually(shown, "the orphans are shown")
    assert await fleet.get("VirtualMachine", "victim") == before
    assert unknown in liar.daemon.reports, "an orphan is kept"
    for orphan in (uid, unknown):
        del liar.daemon.reports[orphan]
    await liar.stop()
    await liar.start()

    async def cleared() -> bool:
        found = await fleet.get("VMNode", liar.name)
        return bool(found) and not found["status"].get("orphans")

    await fleet.eventually(cleared, "the orphans are gone")


async def test_a_refusal_of_the_node_is_said_and_tried_again(fleet: Rig) -> None:
    for node in fleet.nodes.values():
        node.daemon.refusal = ConflictError("Pool default is being moved.")
    await fleet.create_machine("refused")

    async def said() -> bool:
        ready = await fleet.condition("VirtualMachine", "refused", "Ready")
        return "Pool default is being moved" in ready.get("message", "")

    await fleet.eventually(said, "the refusal is said")
    for node in fleet.nodes.values():
        node.daemon.refusal = None
    await fleet.wait_word("refused", "Running")


async def test_transitions_are_told_as_events(fleet: Rig) -> None:
    made = await fleet.create_machine("eventful")
    await fleet.wait_word("eventful", "Running")
    query = {"fieldSelector": f"involvedObject.uid={made['metadata']['uid']}"}

    async def told() -> bool:
        events = (await fleet.client.get(EVENTS.collection(SPACE), query))["items"]
        reasons = Counter(event["reason"] for event in events)
        return reasons["Scheduled"] == 1 and len(events) >= 2

    await fleet.eventually(told, "the events are posted")
    events = (await fleet.client.get(EVENTS.collection(SPACE), query))["items"]
    assert all(event["count"] == 1 and event["message"].endswith(".") for event in events)


async def test_no_spec_and_no_annotation_is_ever_written(fleet: Rig) -> None:
    await fleet.create_machine("audited", nodeSelector={})
    await fleet.wait_word("audited", "Running")
    kinds = ("virtualmachines", "vmimages", "vmclasses", "vmnodes")
    ours = [write for kind in kinds for write in fleet.writes(kind)]
    assert ours
    for write in ours:
        assert write.verb == "patch" or (write.verb, write.resource) == ("create", "vmnodes")
        assert write.verb == "create" or set(write.body) <= {"metadata", "status"}
        written = {key for key, value in write.body.get("metadata", {}).items() if value is not None}
        assert written <= {"name", "resourceVersion", "finalizers", "labels"}
