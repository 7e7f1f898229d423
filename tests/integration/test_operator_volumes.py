"""PersistentVolumeClaims as disks: a real API server and operator, simulated nodes, and no kubelet but the test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from operator_rig import SPACE, Rig, rig
from virtfleet_api.machine import Machine, MachineDisk, VolumeMode, VolumeSource
from virtfleet_api.names import MACHINE_UID_LABEL
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_dev.paths import checkout
from virtfleet_operator.core.volumes import LETS_GO_AFTER
from virtfleet_operator.kube.errors import ConflictError, NotFoundError
from virtfleet_operator.kube.paths import CLAIMS, NODES, PODS, VOLUMES, KindPath

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMAGE = "registry.example/holder:1"
VOLUMES_ON = {"enabled": True, "image": IMAGE}
ACCOUNTS = KindPath("/api/v1", "serviceaccounts")
QUOTAS = KindPath("/api/v1", "resourcequotas")
GIB = 1 << 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("volumes")) as built:
        with contextlib.suppress(ConflictError):  # a controller has made it
            await built.client.create(ACCOUNTS.collection(SPACE), {"metadata": {"name": "default"}})
        rights = str(checkout() / "operator" / "rbac-volumes.yaml")
        await asyncio.to_thread(control_plane.kubectl.run, "apply", "-f", rights)
        await built.start_operator(volumes=VOLUMES_ON)
        await built.add_node("node-a")
        await built.add_node("node-b")
        yield built


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def tidy(fleet: Rig) -> AsyncIterator[None]:
    """Leave nothing to the next test."""
    yield
    await fleet.clear("VMSnapshot", "VirtualMachine", "VMImage")
    for path, space in ((PODS, SPACE), (CLAIMS, SPACE), (VOLUMES, ""), (NODES, "")):
        async for page in fleet.client.list_pages(path.collection(space)):
            for item in page["items"]:
                await _remove(fleet, path, space, item)


async def _remove(fleet: Rig, path: KindPath, space: str, item: dict[str, Any]) -> None:
    """Delete an object whose controllers do not run, and wait until it is gone."""
    where = path.object(space, item["metadata"]["name"])

    async def gone() -> bool:
        try:
            await fleet.client.delete(where)
            await fleet.client.patch(where, {"metadata": {"finalizers": None}})
            await fleet.client.get(where)
        except NotFoundError:
            return True
        return False

    await fleet.eventually(gone, f"{where} is gone")


async def make_claim(fleet: Rig, name: str, volume: str | None = None, mode: str = "Filesystem") -> None:
    """Create a claim; one with a volume is bound, as Kubernetes' controller would have it."""
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "",
        "volumeMode": mode,
    }
    if volume:
        spec["volumeName"] = volume
    await fleet.client.create(CLAIMS.collection(SPACE), {"metadata": {"name": name}, "spec": spec})
    if volume:
        await capacity(fleet, name, "2Gi")


async def capacity(fleet: Rig, name: str, size: str) -> None:
    status = {"phase": "Bound", "capacity": {"storage": size}}
    await fleet.client.patch(CLAIMS.status(SPACE, name), {"status": status})


async def make_local_volume(fleet: Rig, name: str, host: str) -> None:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}
    spec = {
        "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteOnce"],
        "local": {"path": "/mnt/disk"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
    }
    await fleet.client.create(VOLUMES.collection(), {"metadata": {"name": name}, "spec": spec})


async def make_machine(fleet: Rig, name: str, claim: str = "data", **spec: Any) -> str:
    disk = {"name": "data", "source": {"pvc": {"claimName": claim}}}
    made = await fleet.create_machine(name, disks=[disk], **spec)
    return str(made["metadata"]["uid"])


async def pods_of(fleet: Rig, uid: str) -> list[dict[str, Any]]:
    pages = fleet.client.list_pages(PODS.collection(SPACE), selector=f"{MACHINE_UID_LABEL}={uid}")
    return [pod async for page in pages for pod in page["items"]]


async def wait_pod(fleet: Rig, uid: str, other_than: str = "") -> dict[str, Any]:
    """Wait for the one pod of a machine."""

    async def there() -> bool:
        return [pod["metadata"]["uid"] != other_than for pod in await pods_of(fleet, uid)] == [True]

    await fleet.eventually(there, "the pod is there")
    return (await pods_of(fleet, uid))[0]


async def wait_no_pod(fleet: Rig, uid: str) -> None:
    async def gone() -> bool:
        return await pods_of(fleet, uid) == []

    await fleet.eventually(gone, "the pod is gone")


async def run_pod(fleet: Rig, pod: dict[str, Any]) -> None:
    """Do what a kubelet does."""
    container = {"name": "holder", "ready": True, "restartCount": 0, "image": IMAGE, "imageID": ""}
    status = {"phase": "Running", "containerStatuses": [container]}
    await fleet.client.patch(PODS.status(SPACE, pod["metadata"]["name"]), {"status": status})


def told(fleet: Rig, uid: str) -> MachineDisk | None:
    """Return the disk as the machine's node was told last."""
    orders = [
        order
        for node in fleet.nodes.values()
        for order in node.daemon.instructions
        if isinstance(order, Machine) and order.uid == uid
    ]
    return orders[-1].hardware.disks[0] if orders else None


async def wait_told(fleet: Rig, uid: str, pod_uid: str | None) -> MachineDisk:
    async def holds() -> bool:
        disk = told(fleet, uid)
        return disk is not None and isinstance(disk.source, VolumeSource) and disk.source.pod_uid == pod_uid

    await fleet.eventually(holds, f"the node is told of pod {pod_uid}")
    found = told(fleet, uid)
    assert found
    return found


async def wait_reason(fleet: Rig, name: str, reason: str, kind: str = "VirtualMachine") -> str:
    """Wait until the condition Ready has a reason; return its message."""

    async def says() -> bool:
        return (await fleet.condition(kind, name, "Ready")).get("reason") == reason

    await fleet.eventually(says, f"{name} is {reason}")
    return str((await fleet.condition(kind, name, "Ready"))["message"])


async def test_a_machine_starts_once_its_claim_is_held(fleet: Rig) -> None:
    uid = await make_machine(fleet, "vol")
    said = await wait_reason(fleet, "vol", "ClaimNotFound")
    assert said == ("spec.disks[0].source.pvc: there is no PersistentVolumeClaim 'data': create it or name another")
    await make_claim(fleet, "data", "pv-1")
    pod = await wait_pod(fleet, uid)
    machine = await fleet.get("VirtualMachine", "vol")
    assert machine
    node = machine["metadata"]["labels"]["virtfleet.io/node"]
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"][0]["matchFields"][0]["values"] == [node]
    assert pod["metadata"]["ownerReferences"][0]["uid"] == uid
    assert {"operator": "Exists"} in pod["spec"]["tolerations"]
    disk = await wait_told(fleet, uid, None)
    assert disk.size_bytes == 2 * GIB
    words = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/2 nodes are available.",
    }
    await fleet.client.patch(PODS.status(SPACE, pod["metadata"]["name"]), {"status": {"conditions": [words]}})

    async def says() -> bool:
        return "0/2 nodes" in (await fleet.condition("VirtualMachine", "vol", "Ready")).get("message", "")

    await fleet.eventually(says, "the machine says what the scheduler says")
    said = await wait_reason(fleet, "vol", "VolumePending")
    assert said == (
        f"spec.disks[0].source.pvc: pod {pod['metadata']['name']}, which holds PersistentVolumeClaim 'data', does not "
        "run yet: 0/2 nodes are available."
    )
    assert await fleet.word("vol") == "Provisioning"
    await run_pod(fleet, pod)
    disk = await wait_told(fleet, uid, pod["metadata"]["uid"])
    assert disk.source == VolumeSource(claim="data", pod_uid=pod["metadata"]["uid"], volume="pv-1")
    await fleet.wait_word("vol", "Running")
    assert await fleet.is_ready("VirtualMachine", "vol")


async def test_a_claim_is_let_go_while_its_machine_is_off(fleet: Rig) -> None:
    await make_claim(fleet, "data", "pv-1", mode="Block")
    uid = await make_machine(fleet, "off", runStrategy="Halted")
    await fleet.wait_word("off", "Stopped")
    assert await pods_of(fleet, uid) == []
    await fleet.patch("VirtualMachine", "off", {"spec": {"runStrategy": "Always"}})
    pod = await wait_pod(fleet, uid)
    assert pod["spec"]["containers"][0]["volumeDevices"] == [{"name": "claim", "devicePath": "/dev/claim"}]
    await run_pod(fleet, pod)
    disk = await wait_told(fleet, uid, pod["metadata"]["uid"])
    assert isinstance(disk.source, VolumeSource)
    assert disk.source.mode is VolumeMode.BLOCK
    await fleet.wait_word("off", "Running")
    await fleet.patch("VirtualMachine", "off", {"spec": {"runStrategy": "Halted"}})
    await wait_no_pod(fleet, uid)
    await wait_told(fleet, uid, None)
    assert await fleet.word("off") == "Stopped"


async def test_a_holder_that_somebody_deletes_is_made_anew_and_the_guest_goes_on(fleet: Rig) -> None:
    await make_claim(fleet, "data", "pv-1")
    uid = await make_machine(fleet, "again")
    first = await wait_pod(fleet, uid)
    await run_pod(fleet, first)
    await fleet.wait_word("again", "Running")
    await fleet.client.delete(PODS.object(SPACE, first["metadata"]["name"]))
    second = await wait_pod(fleet, uid, other_than=first["metadata"]["uid"])
    assert await fleet.word("again") == "Running"
    await run_pod(fleet, second)
    await wait_told(fleet, uid, second["metadata"]["uid"])
    await fleet.client.patch(PODS.status(SPACE, second["metadata"]["name"]), {"status": {"phase": "Failed"}})
    await wait_pod(fleet, uid, other_than=second["metadata"]["uid"])
    assert await fleet.word("again") == "Running"


async def test_a_claim_is_let_go_once_the_guest_has_let_go_of_the_disk(fleet: Rig) -> None:
    await make_claim(fleet, "data", "pv-1")
    uid = await make_machine(fleet, "holds")
    await run_pod(fleet, await wait_pod(fleet, uid))
    await fleet.wait_word("holds", "Running")
    await fleet.patch("VirtualMachine", "holds", {"spec": {"disks": None}})
    node = next(node.daemon for node in fleet.nodes.values() if uid in node.daemon.reports)

    async def known() -> bool:
        return not node.machines[uid].hardware.disks and node.reports[uid].generation == 2

    await fleet.eventually(known, "the node knows that the disk shall go")
    node._publish(node.reports[uid].model_copy(update={"held_disks": ("data",)}))
    await asyncio.sleep(LETS_GO_AFTER.total_seconds() + 15)
    assert len(await pods_of(fleet, uid)) == 1
    node._publish(node.reports[uid].model_copy(update={"held_disks": ()}))
    await wait_no_pod(fleet, uid)
    assert await fleet.word("holds") == "Running"


async def test_an_operator_that_is_killed_in_between_goes_on(fleet: Rig) -> None:
    await make_claim(fleet, "data", "pv-1")
    uid = await make_machine(fleet, "killed")
    pod = await wait_pod(fleet, uid)
    await fleet.kill_operator("one")
    await run_pod(fleet, pod)
    await fleet.start_operator(volumes=VOLUMES_ON)
    await wait_told(fleet, uid, pod["metadata"]["uid"])
    await fleet.wait_word("killed", "Running")
    assert [found["metadata"]["uid"] for found in await pods_of(fleet, uid)] == [pod["metadata"]["uid"]]
    await fleet.kill_operator("one")
    await fleet.client.delete(PODS.object(SPACE, pod["metadata"]["name"]))
    await fleet.start_operator(volumes=VOLUMES_ON)
    await wait_pod(fleet, uid, other_than=pod["metadata"]["uid"])


async def test_the_pods_of_a_deleted_machine_go_before_it_does(fleet: Rig) -> None:
    await make_claim(fleet, "data", "pv-1")
    uid = await make_machine(fleet, "doomed")
    await run_pod(fleet, await wait_pod(fleet, uid))
    await fleet.wait_word("doomed", "Running")
    await fleet.delete("VirtualMachine", "doomed")
    await fleet.wait_gone("VirtualMachine", "doomed")
    assert await pods_of(fleet, uid) == []
    assert (await fleet.client.get(CLAIMS.object(SPACE, "data")))["metadata"]["name"] == "data"


async def test_a_bound_local_volume_chooses_the_node(fleet: Rig) -> None:
    for node in ("node-a", "node-b"):
        await make_local_volume(fleet, f"local-{node}", node)
        await make_claim(fleet, node, f"local-{node}")
        await make_machine(fleet, f"on-{node}", claim=node)
        await wait_reason(fleet, f"on-{node}", "VolumePending")
        found = await fleet.get("VirtualMachine", f"on-{node}")
        assert found
        assert found["metadata"]["labels"]["virtfleet.io/node"] == node


async def test_a_volume_of_another_host_is_told_and_the_labels_of_kubernetes_nodes_count(fleet: Rig) -> None:
    await make_local_volume(fleet, "local-far", "far-host")
    await make_claim(fleet, "far", "local-far")
    await make_machine(fleet, "far", claim="far")
    said = await wait_reason(fleet, "far", "Unschedulable")
    assert said == "0/2 nodes fit: 2 without volume far"
    await fleet.delete("VirtualMachine", "far")
    await fleet.wait_gone("VirtualMachine", "far")
    for name, host in (("node-a", "near-host"), ("node-b", "other-host")):
        labels = {"kubernetes.io/hostname": host}
        await fleet.client.create(NODES.collection(), {"metadata": {"name": name, "labels": labels}})
    await make_local_volume(fleet, "local-near", "other-host")
    await make_claim(fleet, "near", "local-near")
    await fleet.kill_operator("one")  # labels are remembered for a minute
    await fleet.start_operator(volumes=VOLUMES_ON)
    await make_machine(fleet, "near", claim="near")
    await wait_reason(fleet, "near", "VolumePending")
    found = await fleet.get("VirtualMachine", "near")
    assert found
    assert found["metadata"]["labels"]["virtfleet.io/node"] == "node-b"


async def test_a_pod_of_somebody_else_is_left_alone(fleet: Rig) -> None:
    await make_claim(fleet, "data", "pv-1")
    uid = await make_machine(fleet, "foreign")
    pod = await wait_pod(fleet, uid)
    await fleet.kill_operator("one")
    name = pod["metadata"]["name"]
    await fleet.client.delete(PODS.object(SPACE, name))
    other = {"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
    await fleet.client.create(PODS.collection(SPACE), other)
    await fleet.start_operator(volumes=VOLUMES_ON)

    async def says() -> bool:
        condition = await fleet.condition("VirtualMachine", "foreign", "Ready")
        return "not one that virtfleet made" in condition.get("message", "")

    await fleet.eventually(says, "the machine names the pod")
    await fleet.client.delete(PODS.object(SPACE, name))
    await wait_pod(fleet, uid)


async def test_a_full_quota_is_told_and_the_machine_goes_on_once_there_is_room(fleet: Rig) -> None:
    await make_claim(fleet, "data", "pv-1")
    hard = {"pods": "0"}
    await fleet.client.create(QUOTAS.collection(SPACE), {"metadata": {"name": "full"}, "spec": {"hard": hard}})
    status = {"hard": hard, "used": {"pods": "0"}}
    await fleet.client.patch(QUOTAS.status(SPACE, "full"), {"status": status})
    uid = await make_machine(fleet, "quota")
    said = await wait_reason(fleet, "quota", "VolumePending")
    assert said.startswith("spec.disks[0].source.pvc: pod quota-data-")
    assert "cannot be created" in said
    assert "exceeded quota: full" in said
    await fleet.client.delete(QUOTAS.object(SPACE, "full"))
    await run_pod(fleet, await wait_pod(fleet, uid))
    await fleet.wait_word("quota", "Running")


async def test_a_snapshot_leaves_volumes_out(fleet: Rig) -> None:
    await make_claim(fleet, "data", "pv-1")
    disks = [
        {"name": "root", "size": "1Gi", "source": {"blank": {}}},
        {"name": "data", "source": {"pvc": {"claimName": "data"}}},
    ]
    made = await fleet.create_machine("kept", disks=disks)
    await run_pod(fleet, await wait_pod(fleet, made["metadata"]["uid"]))
    await fleet.wait_word("kept", "Running")
    await fleet.create("VMSnapshot", "whole", {"virtualMachine": "kept"})
    said = await wait_reason(fleet, "whole", "Invalid", "VMSnapshot")
    assert 'write "excludeDisks: [data]"' in said
    await fleet.create("VMSnapshot", "parts", {"virtualMachine": "kept", "mode": "Disk", "excludeDisks": ["data"]})
    await fleet.eventually(lambda: fleet.is_ready("VMSnapshot", "parts"), "the snapshot is Ready")
    await fleet.create_machine(
        "copy", disks=[{"name": "d", "source": {"disk": {"virtualMachine": "kept", "name": "data"}}}]
    )
    said = await wait_reason(fleet, "copy", "Invalid")
    assert "'data' is PersistentVolumeClaim 'data', which is not copied" in said


async def test_without_volumes_enabled_a_machine_says_so(fleet: Rig) -> None:
    await make_claim(fleet, "data", "pv-1")
    rights = str(checkout() / "operator" / "rbac-volumes.yaml")
    await fleet.stop_operator("one")
    await asyncio.to_thread(fleet.control_plane.kubectl.run, "delete", "-f", rights)
    await fleet.start_operator()
    uid = await make_machine(fleet, "closed")
    said = await wait_reason(fleet, "closed", "VolumesDisabled")
    assert said == (
        "spec.disks[0].source.pvc: this operator makes no pods to hold PersistentVolumeClaims: set volumes.enabled in "
        "its configuration, or remove the disk"
    )
    await asyncio.sleep(1)
    assert await pods_of(fleet, uid) == []
    await asyncio.to_thread(fleet.control_plane.kubectl.run, "apply", "-f", rights)
    await fleet.stop_operator("one")
    await fleet.start_operator(volumes=VOLUMES_ON)
    await wait_pod(fleet, uid)
