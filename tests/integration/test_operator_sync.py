"""What the operator knows of the API server's objects: all there are at its start, and none that have gone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import kopf
import pytest
import pytest_asyncio

from operator_rig import Rig, rig
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_operator.handlers.running import run_kopf
from virtfleet_operator.handlers.watch import WatchActivity, register, register_login
from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.kube.connection import read_connection
from virtfleet_operator.kube.paths import OUR_PATHS
from virtfleet_operator.kube.sync import Resync, fill
from virtfleet_operator.settings import build_kopf_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

GUEST: dict[str, Any] = {"memory": {"guest": "64Mi"}}
UID = "0b0b0b0b-0000-4000-8000-00000000000b"
FORMER = {"name": "gone", "uid": UID}
HOLDER = {**FORMER, "namespace": "default", "interface": "eth0"}
SPECS: dict[str, dict[str, Any]] = {
    "VirtualMachine": GUEST,
    "VMImage": {"source": {"http": {"url": "http://images.virtfleet.test/guest.qcow2"}}},
    "VMNode": {},
    "VMClass": {"cpu": {"cores": 1}, **GUEST},
    "VMDisk": {"nodeName": "none", "pool": "default", "disk": "root", "formerMachine": FORMER},
    "VirtualSwitch": {"type": "Overlay"},
    "SecurityGroup": {},
    "VMAddress": {"switch": "seen", "address": "10.9.0.5", "holder": HOLDER},
    "VMSnapshot": {"virtualMachine": "seen"},
    "VMRestore": {"snapshot": "seen", "target": {"virtualMachine": "seen"}},
    "VMSnapshotSchedule": {"schedule": "0 2 * * *", "virtualMachine": "seen"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """An API server that no operator is at work on."""
    async with rig(control_plane, tmp_path_factory.mktemp("sync")) as built:
        yield built


@pytest_asyncio.fixture(loop_scope="module")
async def made(api: Rig) -> AsyncIterator[None]:
    for kind, spec in SPECS.items():
        await api.create(kind, "seen", spec)
    yield
    await api.clear(*SPECS)


def seen(cache: Cache) -> set[str]:
    """Return the kinds of which the object is known; of some there may be others, which other tests have left."""
    return {kind for kind in OUR_PATHS if "seen" in [stored.key.name for stored in cache.all(kind)]}


@pytest.mark.usefixtures("made")
async def test_who_begins_to_lead_knows_every_kind(api: Rig) -> None:
    cache = Cache({})
    await fill(api.client, cache)
    assert seen(cache) == set(OUR_PATHS)


@pytest.mark.usefixtures("made")
async def test_what_goes_between_the_first_look_and_the_watch_is_missed_soon(api: Rig) -> None:
    """Nothing tells of such a deletion: the watch lists what is left, and goes on from there."""
    cache = Cache({})
    await fill(api.client, cache)
    for kind in ("VMRestore", "VirtualSwitch"):
        await api.delete(kind, "seen")
    resync, stop = Resync(api.client, cache), asyncio.Event()
    registry, connection = kopf.OperatorRegistry(), await read_connection(api.control_plane.kubeconfig)
    register(registry, cache)
    register_login(registry, connection, WatchActivity(resync.ask))
    parts = [
        asyncio.create_task(resync.run()),
        asyncio.create_task(run_kopf(registry, build_kopf_settings(), stop, lambda: None)),
    ]

    async def left(*kinds: str) -> bool:
        return seen(cache) == set(OUR_PATHS) - set(kinds)

    try:
        await api.eventually(lambda: left("VMRestore", "VirtualSwitch"), "what has gone is forgotten", seconds=30)
        await api.delete("VMClass", "seen")
        await api.eventually(lambda: left("VMRestore", "VirtualSwitch", "VMClass"), "the watch goes on", seconds=30)
    finally:
        parts[0].cancel()
        stop.set()
        await asyncio.wait(parts)
