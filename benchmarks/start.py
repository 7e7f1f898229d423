"""From create to Running, against libvirt's createXML of the same XML in the same run; and the operator's writes."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

import libvirt
from lxml import etree

from virtfleet_api.names import API_VERSION
from virtfleet_dev.cluster import Cluster, is_ready
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.connection import read_connection
from virtfleet_operator.kube.errors import NotFoundError
from virtfleet_operator.kube.paths import OUR_PATHS

STEP_SECONDS: Final = 0.01
PATIENCE_SECONDS: Final = 120.0
AUDIT_SECONDS: Final = 0.3
"""Between a write and its line in the audit log."""

IMAGE: Final = "bench"
MACHINES: Final = OUR_PATHS["VirtualMachine"]


@dataclass
class Starts:
    """Seconds of each round, and the operator's successful writes by what they were to."""

    product: list[float] = field(default_factory=list)
    libvirt: list[float] = field(default_factory=list)
    writes: Counter[str] = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        """Return how many times longer the product takes, by medians."""
        return median(self.product) / median(self.libvirt)


async def measure_starts(cluster: Cluster, rounds: int) -> Starts:
    """Start one machine after the other, each once by the product and once by libvirt alone."""
    starts = Starts()
    async with KubeClient(await read_connection(cluster.kubectl.kubeconfig)) as client:
        await _import_image(client)
        for number in range(rounds):
            await _one_round(cluster, client, f"start-{number}", starts)
    return starts


def build_machine(name: str, **spec: Any) -> dict[str, Any]:
    """Return the manifest of a machine."""
    return {"apiVersion": API_VERSION, "kind": "VirtualMachine", "metadata": {"name": name}, "spec": spec}


async def until(client: KubeClient, path: str, holds: Callable[[dict[str, Any]], object]) -> None:
    """Poll an object until something holds of it; an object that is gone is empty."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds(await _get(client, path)):
            await asyncio.sleep(STEP_SECONDS)


def shows(word: str) -> Callable[[dict[str, Any]], bool]:
    """Return what tells whether a machine's printableStatus is the word."""
    return lambda found: found.get("status", {}).get("printableStatus") == word


async def _get(client: KubeClient, path: str) -> dict[str, Any]:
    try:
        return await client.get(path)
    except NotFoundError:
        return {}


async def _import_image(client: KubeClient) -> None:
    paths = OUR_PATHS["VMImage"]
    source = {"http": {"url": "http://images.virtfleet.test/guest.qcow2"}}
    body = {"apiVersion": API_VERSION, "kind": "VMImage", "metadata": {"name": IMAGE}, "spec": {"source": source}}
    await client.create(paths.collection("default"), body)
    await until(client, paths.object("default", IMAGE), is_ready)


async def _one_round(cluster: Cluster, client: KubeClient, name: str, starts: Starts) -> None:
    path = MACHINES.object("default", name)
    machine = build_machine(
        name,
        memory={"guest": "256Mi"},
        disks=[{"name": "root", "source": {"image": {"name": IMAGE}}}],
        networks=[{"name": "eth0", "user": {}}],
        terminationGracePeriodSeconds=0,
    )
    begin = time.perf_counter()
    created = await client.create(MACHINES.collection("default"), machine)
    await until(client, path, shows("Running"))
    starts.product.append(time.perf_counter() - begin)
    await asyncio.sleep(AUDIT_SECONDS)
    starts.writes.update(_writes(cluster, name))

    await client.patch(path, {"spec": {"runStrategy": "Halted"}})
    await until(client, path, shows("Stopped"))
    starts.libvirt.append(await asyncio.to_thread(_start_by_libvirt, cluster.nodes[0].uri, created["metadata"]["uid"]))

    await client.delete(path)
    await until(client, path, lambda found: not found)


def _writes(cluster: Cluster, name: str) -> Counter[str]:
    """Return the operator's writes that concern a machine so far."""
    return Counter(
        f"{write.resource}/{write.subresource}".rstrip("/")
        for write in cluster.control_plane.writes()
        if write.user == "virtfleet-operator" and (write.name == name or write.name.startswith(f"{name}."))
    )


def _start_by_libvirt(uri: str, uid: str) -> float:
    """Start a stopped machine's own XML under another identity, and return the seconds it took."""
    connection = libvirt.open(uri)
    try:
        xml = etree.fromstring(connection.lookupByUUIDString(uid).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        xml.find("uuid").text = str(uuid.uuid4())
        xml.find("name").text = "bench-libvirt"
        begin = time.perf_counter()
        domain = connection.createXML(etree.tostring(xml, encoding="unicode"))
        seconds = time.perf_counter() - begin
        domain.destroy()
    finally:
        connection.close()
    return seconds
