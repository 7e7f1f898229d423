"""What a node answers: documents, epochs, and a Problem with a sentence for everything else."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from yarl import URL

from identities import NODE, UID, Identities
from virtfleet_api.machine import Hardware, Machine, Run
from virtfleet_api.node_api import MAX_DOCUMENT_BYTES
from virtfleet_api.node_network import NodeNetwork
from virtfleet_api.pool import Pool, PoolSet
from virtfleet_node.api import problems
from virtfleet_node.api.epoch import EpochGuard
from virtfleet_node.core.errors import ConflictError, InvalidError, NodeError, UnavailableError

if TYPE_CHECKING:
    from conftest import Peer, RunningNode

MACHINE = Machine(uid=UID, namespace="shop", name="web", run=Run.RUNNING, hardware=Hardware(memory_bytes=1 << 28))
OTHER = "11111111-1111-4111-8111-111111111111"
IMAGE: dict[str, Any] = {
    "uid": UID,
    "namespace": "shop",
    "name": "disk",
    "pool": "default",
    "main": {"url": "https://images/disk.qcow2"},
}


def body(**changes: Any) -> bytes:
    return json.dumps({**MACHINE.to_json_dict(), **changes}).encode()


async def test_a_machine_is_put_read_listed_and_removed(operator: "Peer", node: "RunningNode") -> None:
    status, report = await operator.ask("PUT", f"/v1/machines/{UID}", body())
    assert (status, report["phase"], report["name"]) == (200, "Starting", "web")
    assert node.daemon.instructions == [MACHINE]
    assert (await operator.ask("GET", f"/v1/machines/{UID}"))[0] == 200
    _, found = await operator.ask("GET", "/v1/machines")
    assert [item["uid"] for item in found["items"]] == [UID]  # type: ignore[attr-defined]  # JSON
    status, report = await operator.ask("DELETE", f"/v1/machines/{UID}")
    assert (status, report["phase"]) == (200, "Absent")
    assert (await operator.ask("GET", f"/v1/machines/{UID}"))[0] == 404


async def test_an_image_is_put_and_listed(operator: "Peer") -> None:
    status, report = await operator.ask("PUT", f"/v1/images/{UID}", json.dumps(IMAGE).encode())
    assert (status, report["phase"]) == (200, "Ready")
    _, found = await operator.ask("GET", "/v1/images")
    assert [item["uid"] for item in found["items"]] == [UID]  # type: ignore[attr-defined]  # JSON


async def test_a_snapshot_is_put_listed_and_removed(operator: "Peer", node: "RunningNode") -> None:
    snapshot = {"uid": OTHER, "namespace": "shop", "name": "before", "machineUid": UID}
    path = f"/v1/snapshots/{OTHER}"
    assert (await operator.ask("PUT", path, json.dumps(snapshot).encode()))[0] == 409, "there is no such machine"
    await operator.ask("PUT", f"/v1/machines/{UID}", body())
    status, report = await operator.ask("PUT", path, json.dumps(snapshot).encode(), epoch="7")
    assert (status, report["phase"], report["machineUid"]) == (200, "Ready", UID)
    _, found = await operator.ask("GET", "/v1/snapshots")
    assert [item["uid"] for item in found["items"]] == [OTHER]  # type: ignore[attr-defined]  # JSON
    assert (await operator.ask("PUT", path, json.dumps(snapshot).encode(), epoch="6"))[0] == 409
    assert (await operator.ask("PUT", f"/v1/snapshots/{UID}", json.dumps(snapshot).encode(), epoch="7"))[0] == 400
    gone = json.dumps({**snapshot, "present": False}).encode()
    assert (await operator.ask("PUT", path, gone, epoch="7"))[1]["phase"] == "Deleting"
    assert (await operator.ask("GET", "/v1/snapshots"))[1]["items"] == []
    assert not node.daemon.list_snapshots()


async def test_pools_are_put_as_a_whole_and_by_the_leader_alone(operator: "Peer", node: "RunningNode") -> None:
    pool = {"name": "fast", "path": "/srv/pools/fast"}
    status, found = await operator.ask("PUT", "/v1/pools", json.dumps({"items": [pool]}).encode(), epoch="7")
    assert status == 200
    assert [item["name"] for item in found["items"]] == ["default", "fast"]  # type: ignore[attr-defined]  # JSON
    assert (await operator.ask("PUT", "/v1/pools", b'{"items": []}', epoch="6"))[0] == 409
    assert node.daemon.wanted_pools == PoolSet(items=(Pool(name="fast", path="/srv/pools/fast"),))
    bad = json.dumps({"items": [{**pool, "path": "/srv/../etc"}]}).encode()
    status, problem = await operator.ask("PUT", "/v1/pools", bad, epoch="7")
    assert (status, problem["reason"]) == (400, "Invalid")
    assert "items.0.path" in str(problem["message"])


async def test_the_network_is_put_as_a_whole_and_by_the_leader_alone(operator: "Peer", node: "RunningNode") -> None:
    uplink = {"network_name": "uplink-eth1", "interface": "eth1"}
    wanted = {"uplinks": [uplink], "peers": ["10.0.0.1", "fd00::1"]}
    status, found = await operator.ask("PUT", "/v1/network", json.dumps(wanted).encode(), epoch="7")
    assert (status, found["connected"], found["firewall"]) == (200, True, True)
    assert node.daemon.wanted_network == NodeNetwork.model_validate(wanted)
    assert (await operator.ask("PUT", "/v1/network", b"{}", epoch="6"))[0] == 409
    bad = json.dumps({"uplinks": [{**uplink, "interface": "--all"}]}).encode()
    status, problem = await operator.ask("PUT", "/v1/network", bad, epoch="7")
    assert (status, problem["reason"]) == (400, "Invalid")
    assert "uplinks.0.interface" in str(problem["message"])
    assert node.daemon.wanted_network == NodeNetwork.model_validate(wanted)


async def test_the_traffic_of_a_machines_cards_is_read(operator: "Peer") -> None:
    card = {"name": "eth0", "mac": "52:54:00:00:00:01"}
    changed = {**MACHINE.hardware.model_dump(mode="json"), "interfaces": [card]}
    assert (await operator.ask("PUT", f"/v1/machines/{UID}", body(hardware=changed), epoch="7"))[0] == 200
    status, found = await operator.ask("GET", f"/v1/machines/{UID}/interfaces")
    assert status == 200
    assert [item["receivedBytes"] for item in found["items"]] == [100]  # type: ignore[attr-defined]  # JSON
    assert (await operator.ask("GET", f"/v1/machines/{UID[:-2]}ee/interfaces"))[0] == 404


async def test_the_inventory_is_read(operator: "Peer") -> None:
    assert (await operator.ask("GET", "/v1/node"))[1]["name"] == NODE


async def test_a_former_leader_is_refused_also_after_a_restart(operator: "Peer", node: "RunningNode") -> None:
    assert (await operator.ask("PUT", f"/v1/machines/{UID}", body(), epoch="7"))[0] == 200
    status, problem = await operator.ask("PUT", f"/v1/machines/{UID}", body(run="Stopped"), epoch="6")
    assert (status, problem["reason"]) == (409, "StaleEpoch")
    assert "epoch 7" in str(problem["message"])
    for method, path in (("DELETE", f"/v1/machines/{UID}"), ("PUT", f"/v1/images/{UID}")):
        status, problem = await operator.ask(method, path, json.dumps(IMAGE).encode(), epoch="6")
        assert (status, problem["reason"]) == (409, "StaleEpoch")
    assert node.daemon.instructions == [MACHINE]
    assert EpochGuard(node.epoch_path).highest == 7
    assert node.metric("virtfleet_node_refusals_total", reason="StaleEpoch") == 3


async def test_an_instruction_that_was_on_its_way_when_the_leader_changed_is_refused(
    operator: "Peer", node: "RunningNode", fleet: Identities
) -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    async def slow_body() -> Any:
        yield body()[:10]
        started.set()
        await may_end.wait()
        yield body()[10:]

    async with node.connect(fleet.operator()) as former:
        slow = asyncio.create_task(former.ask("PUT", f"/v1/machines/{UID}", slow_body(), epoch="1"))  # type: ignore[arg-type]  # aiohttp takes it
        await started.wait()
        assert (await operator.ask("PUT", f"/v1/machines/{UID}", body(run="Stopped"), epoch="2"))[0] == 200
        may_end.set()
        status, problem = await slow
    assert (status, problem["reason"]) == (409, "StaleEpoch")
    assert [one.run for one in node.daemon.instructions if isinstance(one, Machine)] == [Run.STOPPED]


@pytest.mark.parametrize("epoch", [None, "", "-1", "x", "1" * 30])
async def test_an_instruction_without_an_epoch_is_invalid(
    operator: "Peer", node: "RunningNode", epoch: str | None
) -> None:
    status, problem = await operator.ask("PUT", f"/v1/machines/{UID}", body(), epoch=epoch)
    assert (status, problem["reason"]) == (400, "Invalid")
    assert "Virtfleet-Epoch" in str(problem["message"])
    assert node.daemon.instructions == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the body"),
        (b"{", "the body"),
        (b"[]", "the body"),
        (b"\xff\xfe", "the body"),
        (b"[" * 100_000, "the body"),
        (body(uid="1"), "uid"),
        (body(namespace="<xml/>"), "namespace"),
        (body(run="Maybe"), "run"),
        (body(hardware={"memoryBytes": 0}), "hardware.memoryBytes"),
        (body(hardware={"memoryBytes": 1, "cpuModel": "a b"}), "hardware.cpuModel"),
        (body(uid="0e2c1f54-8a0b-4c3d-9e6f-000000000000"), "differs"),
    ],
)
async def test_a_document_that_cannot_be_served_is_named(
    operator: "Peer", node: "RunningNode", content: bytes, said: str
) -> None:
    status, problem = await operator.ask("PUT", f"/v1/machines/{UID}", content)
    assert (status, problem["reason"]) == (400, "Invalid")
    assert said in str(problem["message"])
    assert node.daemon.instructions == []


async def test_secrets_are_not_repeated(operator: "Peer") -> None:
    files = {"metaData": "x", "userData": {"password": "hunter2"}}
    _, problem = await operator.ask("PUT", f"/v1/machines/{UID}", body(cloudInit=files))
    assert "cloudInit.userData" in str(problem["message"])
    assert "hunter2" not in str(problem)


async def test_a_body_that_is_too_large_is_refused(operator: "Peer", node: "RunningNode") -> None:
    status, problem = await operator.ask("PUT", f"/v1/machines/{UID}", bytes(MAX_DOCUMENT_BYTES + 1))
    assert (status, problem["reason"]) == (413, "Invalid")
    assert node.daemon.instructions == []


async def test_a_body_that_does_not_arrive_is_given_up(operator: "Peer", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "BODY_SECONDS", 0.05)
    may_end = asyncio.Event()

    async def endless() -> Any:
        yield b"{"
        await may_end.wait()

    status, problem = await operator.ask("PUT", f"/v1/machines/{UID}", endless())  # type: ignore[arg-type]  # aiohttp takes it
    may_end.set()
    assert status == 400
    assert "did not arrive" in str(problem["message"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1/secrets"),
        ("GET", "/v2/machines"),
        ("POST", f"/v1/machines/{UID}"),
        ("DELETE", f"/v1/images/{UID}"),
        ("PATCH", "/v1/node"),
    ],
)
async def test_what_is_not_served_is_not_found(operator: "Peer", method: str, path: str) -> None:
    status, problem = await operator.ask(method, path, b"{}")
    assert status in {404, 405}
    assert problem["reason"] == "NotFound"


@pytest.mark.parametrize("uid", ["x", "..%2F..%2Fetc%2Fpasswd", UID.upper(), UID + "%0A", "%00", UID + "x"])
@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("DELETE", ""), ("PUT", ""), ("GET", "/console")])
async def test_nothing_but_a_uid_passes_for_one(operator: "Peer", method: str, suffix: str, uid: str) -> None:

    status, problem = await operator.ask(method, URL(f"/v1/machines/{uid}{suffix}", encoded=True), body())  # type: ignore[arg-type]  # aiohttp takes it
    assert (status, problem["reason"]) == (400, "Invalid")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (InvalidError("Disk root cannot be smaller than its image."), 400, "Invalid"),
        (ConflictError("The disk is in use."), 409, "Conflict"),
        (UnavailableError("libvirtd does not answer."), 503, "Unavailable"),
    ],
)
async def test_what_the_daemon_refuses_is_told(
    operator: "Peer", node: "RunningNode", error: NodeError, status: int, reason: str
) -> None:
    node.daemon.refusal = error
    answer = await operator.ask("PUT", f"/v1/machines/{UID}", body())
    assert answer == (status, {"reason": reason, "message": str(error)})


async def test_a_failure_of_the_daemon_tells_the_peer_nothing_of_it(operator: "Peer", node: "RunningNode") -> None:
    node.daemon.refusal = RuntimeError("/var/lib/virtfleet/secret")
    status, problem = await operator.ask("PUT", f"/v1/machines/{UID}", body())
    assert (status, problem["reason"]) == (500, "Unavailable")
    assert "secret" not in str(problem)
    assert "Traceback" not in str(problem)
    assert node.metric("virtfleet_node_requests_total", method="PUT", status="500") == 1


async def test_strange_methods_make_no_new_series(operator: "Peer", node: "RunningNode") -> None:
    for method in ("PROPFIND", "REPORT"):
        await operator.ask(method, "/v1/node")
    assert node.metric("virtfleet_node_requests_total", method="other", status="405") == 2
