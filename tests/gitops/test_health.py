"""What Flux (kstatus, expressions) and Argo CD (Lua) show of each kind, from real objects in each of their states."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import yaml

from argo_health import SCRIPT, argo_health
from kstatus import Health, judge, kstatus
from simulated_node import SimulatedDaemon
from virtfleet_api.image import Image
from virtfleet_api.report import Phase
from virtfleet_api.vm_image import ImagePhase
from virtfleet_api.vm_snapshot import SnapshotPhase
from virtfleet_dev.paths import checkout
from virtfleet_operator.kube.paths import OUR_PATHS

if TYPE_CHECKING:
    from conftest import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = checkout() / "docs" / "howto" / "gitops.md"
MEMORY = {"memory": {"guest": "256Mi"}}
DISK = {"name": "root", "size": "1Gi", "source": {"blank": {}}}
SOURCE = {"source": {"http": {"url": "http://images.virtfleet.test/guest.qcow2"}}}
INVALID: dict[str, dict[str, Any]] = {
    "VirtualMachine": {**MEMORY, "disks": [DISK, {**DISK, "name": "data", "source": {}}]},
    "VMImage": {"source": {}},
    "VMClass": {"cpu": {"cores": 4, "maxVcpus": 2}, "memory": {"guest": "256Mi"}},
    "VirtualSwitch": {"type": "Overlay", "subnet": {"cidr": "10.9.0.0/24", "gateway": "10.8.0.1"}},
    "SecurityGroup": {"ingress": [{"from": [{"cidr": "10.0.0.1/8"}]}]},
    "VMRestore": {"snapshot": "none", "target": {}},
    "VMSnapshotSchedule": {"schedule": "99 * * * *", "virtualMachine": "web"},
}


def blocks() -> list[dict[str, Any]]:
    text = PAGE.read_text()
    return [yaml.safe_load(part.split("```")[0]) for part in text.split("```yaml\n")[1:]]


EXPRESSIONS = {one["kind"]: one for one in blocks()[0]["spec"]["healthCheckExprs"]}


async def shows(lab: "Lab", kind: str, name: str, health: Health, argo: str) -> dict[str, Any]:
    """Wait until both show this of an object; return it."""
    last: dict[str, Any] = {}

    async def so() -> bool:
        found = await lab.fleet.get(kind, name)
        last.clear()
        last.update(found or {})
        return bool(found) and (kstatus(found), argo_health(found)[0]) == (health, argo)

    try:
        await lab.fleet.eventually(so, f"{kind} {name} is {health} and {argo}", seconds=30)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{kstatus(last)}, {argo_health(last)}: {last.get('status')}") from None
    return last


def daemon(lab: "Lab") -> SimulatedDaemon:
    return lab.fleet.nodes["node-a"].daemon


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def tidy(lab: "Lab") -> AsyncIterator[None]:
    """Leave nothing to the next test, nor to this one when it is run again."""
    yield
    node = daemon(lab)
    node.restores_end, node.snapshots.phase, node.image_phase = True, SnapshotPhase.READY, ImagePhase.READY
    await lab.fleet.clear(*(kind for kind in OUR_PATHS if kind not in ("VMNode", "VMAddress")))


async def test_the_page_has_the_script() -> None:
    (config,) = [one for one in blocks() if one["kind"] == "ConfigMap"]
    said = yaml.safe_load(config["data"]["resource.customizations"])
    assert said["virtfleet.io/*"]["health.lua"] == SCRIPT.read_text()


@pytest.mark.parametrize("kind", INVALID)
async def test_what_is_invalid_has_failed(lab: "Lab", kind: str) -> None:
    await lab.fleet.create(kind, "wrong", INVALID[kind])
    found = await shows(lab, kind, "wrong", Health.FAILED, "Degraded")
    assert "write" in argo_health(found)[1]


async def test_an_object_nobody_has_looked_at_is_in_progress(lab: "Lab") -> None:
    await lab.fleet.stop_operator("one")
    made = [
        await lab.fleet.create("VMClass", "fresh", {"cpu": {"cores": 1}, **MEMORY}),
        await lab.fleet.create("VMRestore", "fresh", {"snapshot": "none", "target": {"virtualMachine": "web"}}),
    ]
    for one in made:
        assert kstatus(one) is Health.IN_PROGRESS
        assert argo_health(one)[0] == "Progressing"
    await lab.fleet.start_operator(ovn=lab.ovn)
    await shows(lab, "VMClass", "fresh", Health.CURRENT, "Healthy")


async def test_switches_and_groups(lab: "Lab") -> None:
    await lab.fleet.create("VirtualSwitch", "net", {"type": "Overlay"})
    await lab.fleet.create("SecurityGroup", "web", {})
    for kind, name in (("VirtualSwitch", "net"), ("SecurityGroup", "web")):
        await shows(lab, kind, name, Health.IN_PROGRESS, "Progressing")
    central = await lab.start_ovn()
    try:
        for kind, name in (("VirtualSwitch", "net"), ("SecurityGroup", "web")):
            await shows(lab, kind, name, Health.CURRENT, "Healthy")
        await lab.fleet.clear("SecurityGroup", "VirtualSwitch")
    finally:
        central.down()


async def test_images_and_a_machine_that_waits_for_one(lab: "Lab") -> None:
    daemon(lab).image_phase = ImagePhase.IMPORTING
    await lab.fleet.create("VMImage", "guest", SOURCE)
    await shows(lab, "VMImage", "guest", Health.IN_PROGRESS, "Progressing")
    disk = {**DISK, "source": {"image": {"name": "guest"}}}
    await lab.fleet.create("VirtualMachine", "guest", {**MEMORY, "disks": [disk]})
    await shows(lab, "VirtualMachine", "guest", Health.IN_PROGRESS, "Progressing")
    await end_import(lab, ImagePhase.READY)
    await shows(lab, "VMImage", "guest", Health.CURRENT, "Healthy")
    await shows(lab, "VirtualMachine", "guest", Health.CURRENT, "Healthy")
    await lab.fleet.delete("VMImage", "guest")
    await shows(lab, "VMImage", "guest", Health.TERMINATING, "Progressing")
    await lab.fleet.clear("VirtualMachine", "VMImage")
    daemon(lab).image_phase = ImagePhase.FAILED
    await lab.fleet.create("VMImage", "broken", SOURCE)
    await shows(lab, "VMImage", "broken", Health.FAILED, "Degraded")


async def end_import(lab: "Lab", phase: ImagePhase) -> None:
    """Have the node end an import."""

    async def imports() -> bool:
        return bool(daemon(lab).images)

    await lab.fleet.eventually(imports, "the node imports the image")
    daemon(lab).image_phase = phase
    await daemon(lab).put_image([one for one in daemon(lab).instructions if isinstance(one, Image)][-1])


async def test_machines(lab: "Lab") -> None:
    expressions = EXPRESSIONS["VirtualMachine"]
    made = await lab.fleet.create_machine("web")
    uid = made["metadata"]["uid"]
    running = await shows(lab, "VirtualMachine", "web", Health.CURRENT, "Healthy")
    assert judge(running, expressions) is Health.CURRENT
    await lab.fleet.patch("VirtualMachine", "web", {"spec": {"powerState": "Paused"}})
    paused = await shows(lab, "VirtualMachine", "web", Health.IN_PROGRESS, "Suspended")
    assert judge(paused, expressions) is Health.CURRENT
    await lab.fleet.patch("VirtualMachine", "web", {"spec": {"powerState": None, "runStrategy": "Halted"}})
    off = await shows(lab, "VirtualMachine", "web", Health.IN_PROGRESS, "Healthy")
    assert judge(off, expressions) is Health.CURRENT
    await lab.fleet.patch("VirtualMachine", "web", {"spec": {"runStrategy": "Always"}})
    await shows(lab, "VirtualMachine", "web", Health.CURRENT, "Healthy")
    daemon(lab)._publish(daemon(lab).reports[uid].model_copy(update={"phase": Phase.CRASH_LOOP, "restarts": 7}))
    crashed = await shows(lab, "VirtualMachine", "web", Health.FAILED, "Degraded")
    assert judge(crashed, expressions) is Health.FAILED
    daemon(lab)._publish(daemon(lab).reports[uid].model_copy(update={"phase": Phase.RUNNING, "restarts": 0}))
    await shows(lab, "VirtualMachine", "web", Health.CURRENT, "Healthy")
    await lab.fleet.nodes["node-a"].stop()
    try:
        silent = await shows(lab, "VirtualMachine", "web", Health.IN_PROGRESS, "Unknown")
        assert judge(silent, expressions) is Health.IN_PROGRESS
        await shows(lab, "VMNode", "node-a", Health.IN_PROGRESS, "Unknown")
    finally:
        await lab.fleet.nodes["node-a"].start()
    await shows(lab, "VMNode", "node-a", Health.CURRENT, "Healthy")
    await lab.fleet.create_machine("huge", memory={"guest": "900Gi"})
    huge = await shows(lab, "VirtualMachine", "huge", Health.IN_PROGRESS, "Degraded")
    assert judge(huge, expressions) is Health.IN_PROGRESS
    assert "nodes fit" in argo_health(huge)[1]


async def test_snapshots_restores_and_schedules(lab: "Lab") -> None:
    node = daemon(lab)
    made = await lab.fleet.create_machine("web", disks=[DISK])
    await shows(lab, "VirtualMachine", "web", Health.CURRENT, "Healthy")
    node.snapshots.phase = SnapshotPhase.CAPTURING
    snapshot = await lab.fleet.create("VMSnapshot", "before", {"virtualMachine": "web"})
    await shows(lab, "VMSnapshot", "before", Health.IN_PROGRESS, "Progressing")

    async def captures() -> bool:
        return snapshot["metadata"]["uid"] in node.snapshots.reports

    await lab.fleet.eventually(captures, "the node captures the machine")
    node.snapshots.end(snapshot["metadata"]["uid"], SnapshotPhase.READY, node.journal)
    await shows(lab, "VMSnapshot", "before", Health.CURRENT, "Healthy")
    node.snapshots.phase = SnapshotPhase.FAILED
    await lab.fleet.create("VMSnapshot", "failed", {"virtualMachine": "web"})
    await shows(lab, "VMSnapshot", "failed", Health.FAILED, "Degraded")
    await lab.fleet.create("VMSnapshot", "wrong", {"virtualMachine": "web", "excludeDisks": ["none"]})
    await shows(lab, "VMSnapshot", "wrong", Health.FAILED, "Degraded")
    node.restores_end = False
    for name, message, health, argo in (
        ("undo", "", Health.CURRENT, "Healthy"),
        ("undo-again", "the file is gone", Health.FAILED, "Degraded"),
    ):
        await lab.fleet.create("VMRestore", name, {"snapshot": "before", "target": {"virtualMachine": "web"}})
        await shows(lab, "VMRestore", name, Health.IN_PROGRESS, "Progressing")
        uid = made["metadata"]["uid"]
        await lab.fleet.eventually(lambda uid=uid: waits(node, uid), f"the node restores for {name}")
        node.end_restore(uid, message)
        await shows(lab, "VMRestore", name, health, argo)
    schedule = {"schedule": "0 2 1 1 *", "virtualMachine": "web"}
    await lab.fleet.create("VMSnapshotSchedule", "yearly", schedule)
    await shows(lab, "VMSnapshotSchedule", "yearly", Health.CURRENT, "Healthy")
    await lab.fleet.patch("VMSnapshotSchedule", "yearly", {"spec": {"suspend": True}})
    resting = await shows(lab, "VMSnapshotSchedule", "yearly", Health.IN_PROGRESS, "Suspended")
    assert judge(resting, EXPRESSIONS["VMSnapshotSchedule"]) is Health.CURRENT


async def waits(node: SimulatedDaemon, uid: str) -> bool:
    return uid in node.restored and not node.restored[uid].done
