"""What nodes are told about images, and for how long copies stay: a real API server and operator, simulated nodes."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from operator_rig import SPACE, Rig, rig
from virtfleet_api.image import Image, ImageReport
from virtfleet_api.vm_image import ImagePhase
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_node.core.errors import ConflictError, InvalidError
from virtfleet_operator.kube.paths import SECRETS

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEEP_SECONDS = 1.5
URL = "https://images.example.org/debian-12.qcow2"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("operator")) as built:
        await built.start_operator(images={"keepUnusedSeconds": KEEP_SECONDS})
        await built.add_node("node-a")
        await built.add_node("node-b")
        yield built


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def tidy(fleet: Rig) -> AsyncIterator[None]:
    """Leave nothing to the next test."""
    yield
    for node in fleet.nodes.values():
        node.daemon.image_phase = ImagePhase.READY
    await fleet.clear("VirtualMachine", "VMImage")


def told(fleet: Rig, uid: str) -> list[Image]:
    """Return what any node was told about an image, oldest first of each node."""
    orders = [order for node in fleet.nodes.values() for order in node.daemon.instructions]
    return [order for order in orders if isinstance(order, Image) and order.uid == uid]


async def put_secret(fleet: Rig, name: str, **data: str) -> None:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    await fleet.client.create(SECRETS.collection(SPACE), {"metadata": {"name": name}, "data": encoded})


async def test_credentials_go_to_the_node_that_imports_and_only_until_it_has(fleet: Rig) -> None:
    for node in fleet.nodes.values():
        node.daemon.image_phase = ImagePhase.IMPORTING
    made = await fleet.create("VMImage", "private", {"source": {"http": {"url": URL, "secretRef": {"name": "login"}}}})
    uid = made["metadata"]["uid"]

    async def asks() -> bool:
        return (await fleet.condition("VMImage", "private", "Ready")).get("reason") == "SecretNotFound"

    await fleet.eventually(asks, "it says that there is no Secret")
    assert [order.main and order.main.authorization for order in told(fleet, uid)] == [None]
    await put_secret(fleet, "login", username="bob", password="hunter2")

    async def sent() -> bool:
        return any(order.main and order.main.authorization for order in told(fleet, uid))

    await fleet.eventually(sent, "the Secret is found and sent", seconds=30)
    (known,) = {order.main.authorization for order in told(fleet, uid) if order.main and order.main.authorization}
    assert known == "Basic " + base64.b64encode(b"bob:hunter2").decode()
    (home,) = [node for node in fleet.nodes.values() if uid in node.daemon.images]
    home.daemon.image_phase = ImagePhase.READY
    await home.daemon.put_image(told(fleet, uid)[-1])

    async def forgotten() -> bool:
        return told(fleet, uid)[-1].main.authorization is None

    await fleet.eventually(forgotten, "a node that has the image is told without them")
    assert all(order.copy_token for order in told(fleet, uid))
    assert b"hunter2" not in str(await fleet.get("VMImage", "private")).encode()
    assert "hunter2" not in "".join(operator.process.tail(1000) for operator in fleet.operators.values())
    await fleet.client.delete(SECRETS.object(SPACE, "login"))


async def test_a_token_of_a_service_account_is_never_sent(fleet: Rig) -> None:
    account = {"metadata": {"name": "robot"}}
    await fleet.client.create(f"/api/v1/namespaces/{SPACE}/serviceaccounts", account)
    annotations = {"kubernetes.io/service-account.name": "robot"}
    body = {
        "metadata": {"name": "robots", "annotations": annotations},
        "type": "kubernetes.io/service-account-token",
        "stringData": {"token": "precious"},
    }
    await fleet.client.create(SECRETS.collection(SPACE), body)
    for node in fleet.nodes.values():
        node.daemon.image_phase = ImagePhase.IMPORTING
    made = await fleet.create("VMImage", "sly", {"source": {"http": {"url": URL, "secretRef": {"name": "robots"}}}})

    async def refused() -> bool:
        return (await fleet.condition("VMImage", "sly", "Ready")).get("reason") == "SecretInvalid"

    await fleet.eventually(refused, "it is refused")
    orders = told(fleet, made["metadata"]["uid"])
    assert [order.main and order.main.authorization for order in orders] == [None]
    await fleet.client.delete(SECRETS.object(SPACE, "robots"))
    await fleet.client.delete(f"/api/v1/namespaces/{SPACE}/serviceaccounts/robot")


async def test_an_idle_copy_goes_and_the_last_one_stays(fleet: Rig) -> None:
    await _spread(fleet, "base")
    for name in ("on-node-a", "on-node-b"):
        await fleet.delete("VirtualMachine", name)
        await fleet.wait_gone("VirtualMachine", name)

    async def one_left() -> bool:
        return len(await _nodes(fleet, "base")) == 1

    await fleet.eventually(one_left, "one copy is removed", seconds=20)
    assert await fleet.is_ready("VMImage", "base")
    assert sum(len(node.daemon.images) for node in fleet.nodes.values()) == 1


async def test_a_copy_that_the_node_still_needs_stays(fleet: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = fleet.nodes["node-b"].daemon
    refused: list[Image] = []
    put = daemon.put_image

    async def refuse(image: Image) -> ImageReport:
        if image.present:
            return await put(image)
        refused.append(image)
        raise ConflictError("Disks of these machines are backed by the image.")

    uid = await _spread(fleet, "needed")
    monkeypatch.setattr(daemon, "put_image", refuse)
    await fleet.delete("VirtualMachine", "on-node-b")

    async def asked() -> bool:
        return bool(refused)

    await fleet.eventually(asked, "the node is asked", seconds=20)
    assert len(await _nodes(fleet, "needed")) == 2
    assert uid in daemon.images
    assert await fleet.is_ready("VMImage", "needed")
    monkeypatch.undo()


async def test_a_refusal_of_a_node_is_said(fleet: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: Image) -> ImageReport:
        raise InvalidError("This node has no pool default.")

    for node in fleet.nodes.values():
        monkeypatch.setattr(node.daemon, "put_image", refuse)
    await fleet.create("VMImage", "nowhere", {"source": {"http": {"url": URL}}})

    async def said() -> bool:
        return "This node has no pool default" in (await fleet.condition("VMImage", "nowhere", "Ready")).get(
            "message", ""
        )

    await fleet.eventually(said, "the refusal is said")
    monkeypatch.undo()
    await fleet.eventually(lambda: fleet.is_ready("VMImage", "nowhere"), "it is tried again")


async def _spread(fleet: Rig, name: str) -> str:
    """Make an image and a machine of it on each node; return its UID."""
    made = await fleet.create("VMImage", name, {"source": {"http": {"url": URL}}})
    disks = [{"name": "root", "source": {"image": {"name": name}}}]
    for node in fleet.nodes:
        selector = {"kubernetes.io/hostname": node}
        await fleet.create_machine(f"on-{node}", disks=disks, nodeSelector=selector)
    for node in fleet.nodes:
        await fleet.wait_word(f"on-{node}", "Running")

    async def everywhere() -> bool:
        return [node["phase"] for node in await _nodes(fleet, name)] == ["Ready", "Ready"]

    await fleet.eventually(everywhere, "both nodes have the image")
    return str(made["metadata"]["uid"])


async def _nodes(fleet: Rig, name: str) -> list[dict[str, Any]]:
    return list((await fleet.get("VMImage", name) or {}).get("status", {}).get("nodes", []))
