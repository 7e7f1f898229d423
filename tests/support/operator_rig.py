"""A real API server, real operator processes, and nodes that are real down to the daemon behind their server."""

import asyncio
import contextlib
import itertools
import secrets
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from polling import until
from simulated_node import SimulatedNode
from virtfleet_api.enrol import ENROL_PATH, EnrolReply, EnrolRequest
from virtfleet_api.names import API_VERSION, CA_NAME, JOIN_TOKEN_TYPE
from virtfleet_dev.control_plane import ControlPlane, Write, free_port
from virtfleet_dev.paths import program
from virtfleet_dev.process import Program
from virtfleet_operator.health import LEADING, WAITING
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.connection import read_connection
from virtfleet_operator.kube.errors import ConflictError, NotFoundError
from virtfleet_operator.kube.paths import CONFIG_MAPS, LEASES, OUR_PATHS, SECRETS

SYSTEM = "virtfleet-system"
USER = "virtfleet-operator"
SPACE = "default"
PATIENCE_SECONDS = 120.0
_MADE = ("VMSnapshotSchedule", "VMRestore", "VMSnapshot", "VirtualMachine", "VMDisk", "VMImage", "VMClass")
"""What must not be left for the next rig, which has nodes of its own."""
LEASE = {"durationSeconds": 3, "renewSeconds": 1}


@dataclass
class Operator:
    """An operator process."""

    process: Program
    enrolment_port: int
    metrics_port: int

    async def probe(self, path: str) -> tuple[int, str]:
        """Ask its health port; status 0 when it does not answer."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as session,
                session.get(f"http://127.0.0.1:{self.metrics_port}{path}") as response,
            ):
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def leads(self) -> bool:
        """Tell whether it leads and has filled its cache."""
        return await self.probe("/readyz") == (200, LEADING)

    async def waits(self) -> bool:
        """Tell whether it is ready to follow the one that leads."""
        return await self.probe("/readyz") == (200, WAITING)


@dataclass
class Rig:
    """The parts of one test module."""

    control_plane: ControlPlane
    client: KubeClient
    folder: Path
    operators: dict[str, Operator] = field(default_factory=dict)
    nodes: dict[str, SimulatedNode] = field(default_factory=dict)
    earlier_writes: int = field(init=False)
    """What others wrote to this API server before."""

    def __post_init__(self) -> None:
        """Count what was written before."""
        self.earlier_writes = sum(1 for _ in self.control_plane.writes())

    async def start_operator(self, identity: str = "one", *, wait: bool = True, **settings: Any) -> Operator:
        """Start an operator process and wait until it leads."""
        ports = [free_port() for _ in range(4)]
        kubeconfig = self.control_plane.write_kubeconfig(self.folder / "operator.kubeconfig", USER, None)
        content = {
            "kubeconfig": str(kubeconfig),
            "namespace": SYSTEM,
            "identity": identity,
            "enrolment": {"host": "127.0.0.1", "port": ports[0], "names": ["127.0.0.1"]},
            "webhook": {"enabled": False, "host": "127.0.0.1", "port": ports[1]},
            "subresources": {"enabled": False},
            "metrics": {"host": "127.0.0.1", "port": ports[3]},
            "lease": LEASE,
            **settings,
        }
        path = self.folder / f"{identity}.yaml"
        path.write_text(yaml.safe_dump(content))
        operator = Operator(Program(f"operator-{identity}", self.folder), ports[0], ports[3])
        operator.process.start([program("virtfleet-operator"), "--config", path])
        self.operators[identity] = operator
        if wait:
            await self.eventually(operator.leads, "the operator leads")
        return operator

    async def stop_operator(self, identity: str) -> None:
        """Ask an operator to end."""
        await asyncio.to_thread(self.operators.pop(identity).process.stop)

    async def kill_operator(self, identity: str) -> None:
        """Kill an operator."""
        await asyncio.to_thread(self.operators.pop(identity).process.kill)

    async def add_node(self, name: str, heartbeat_seconds: float = 1.0) -> SimulatedNode:
        """Enrol a node with a join token, as a daemon does, and start it."""
        port = free_port()
        context = await self._enrol(name, f"127.0.0.1:{port}")
        node = SimulatedNode(name, lambda: context, self.folder, port, heartbeat_seconds)
        await node.start()
        self.nodes[name] = node
        await self.eventually(lambda: self.is_ready("VMNode", name), f"{name} is Ready")
        return node

    async def _enrol(self, name: str, address: str) -> ssl.SSLContext:
        token = secrets.token_hex(32)
        secret = {"metadata": {"generateName": "join-"}, "type": JOIN_TOKEN_TYPE}
        secret["stringData"] = {"token": token, "nodeName": name}
        await self.client.create(SECRETS.collection(SYSTEM), secret)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        pem = csr.public_bytes(serialization.Encoding.PEM).decode()
        request = EnrolRequest(node_name=name, address=address, csr_pem=pem, join_token=token)
        reply = await self.enrol(request)
        return self._server_context(name, key, reply)

    async def enrol(self, request: EnrolRequest) -> EnrolReply:
        """Have an operator answer a daemon's request; it must be a good one."""
        ca_pem = (await self.client.get(CONFIG_MAPS.object(SYSTEM, CA_NAME)))["data"]["ca.crt"]
        trust = ssl.create_default_context(cadata=ca_pem)
        port = next(iter(self.operators.values())).enrolment_port
        url, body = f"https://127.0.0.1:{port}{ENROL_PATH}", request.model_dump_json(exclude_none=True)
        async with aiohttp.ClientSession() as session, session.post(url, data=body, ssl=trust) as response:
            assert response.status == 200, await response.text()
            return EnrolReply.model_validate_json(await response.read())

    def _server_context(self, name: str, key: ec.EllipticCurvePrivateKey, reply: EnrolReply) -> ssl.SSLContext:
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        pair = self.folder / f"{name}.pem"
        pair.write_bytes(pem + reply.certificate_pem.encode())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=reply.ca_pem)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(pair)
        return context

    async def create(self, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
        """Create an object of ours."""
        path = OUR_PATHS[kind]
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
        return await self.client.create(path.collection(self._space(kind)), body)

    async def create_machine(self, name: str, **spec: Any) -> dict[str, Any]:
        """Create a small machine without disks."""
        return await self.create("VirtualMachine", name, {"memory": {"guest": "512Mi"}, **spec})

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Read an object of ours; None if there is none."""
        try:
            return await self.client.get(OUR_PATHS[kind].object(self._space(kind), name))
        except NotFoundError:
            return None

    async def patch(self, kind: str, name: str, change: dict[str, Any]) -> dict[str, Any]:
        """Change an object of ours."""
        return await self.client.patch(OUR_PATHS[kind].object(self._space(kind), name), change)

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object of ours."""
        with contextlib.suppress(NotFoundError):
            await self.client.delete(OUR_PATHS[kind].object(self._space(kind), name))

    async def word(self, name: str) -> str | None:
        """Return what `kubectl get vm` shows of a machine."""
        found = await self.get("VirtualMachine", name)
        return (found or {}).get("status", {}).get("printableStatus")

    async def is_ready(self, kind: str, name: str) -> bool:
        """Tell whether the condition Ready is True."""
        found = await self.get(kind, name)
        conditions = (found or {}).get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    async def condition(self, kind: str, name: str, type_: str) -> dict[str, Any]:
        """Return a condition."""
        found = await self.get(kind, name)
        conditions = (found or {}).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == type_), {})

    async def wait_word(self, name: str, *words: str) -> None:
        """Wait until a machine shows one of the words."""

        async def shows() -> bool:
            return await self.word(name) in words

        await self.eventually(shows, f"{name} is {' or '.join(words)}")

    async def wait_gone(self, kind: str, name: str) -> None:
        """Wait until an object is gone."""

        async def gone() -> bool:
            return await self.get(kind, name) is None

        await self.eventually(gone, f"{kind} {name} is gone")

    async def eventually(self, holds: Any, what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Poll an async condition until it holds."""
        try:
            async with asyncio.timeout(seconds):
                while not await holds():
                    await asyncio.sleep(0.05)
                    ended = [operator for operator in self.operators.values() if operator.process.pid is None]
                    assert not ended, f"{what}: an operator has ended:\n{ended[0].process.tail(30)}"
        except TimeoutError:
            logs = "\n".join(operator.process.tail(15) for operator in self.operators.values())
            raise AssertionError(f"{what}: not within {seconds:.0f} s\n{logs}") from None

    def writes(self, resource: str, name: str | None = None) -> list[Write]:
        """Return the operator's writes to a resource of ours, oldest first, since there is this rig."""
        return [
            write
            for write in itertools.islice(self.control_plane.writes(), self.earlier_writes, None)
            if write.user == USER and write.resource == resource and name in (None, write.name)
        ]

    async def epoch(self) -> int:
        """Return the epoch of the Lease."""
        lease = await self.client.get(LEASES.object(SYSTEM, "virtfleet-operator"))
        return int(lease["spec"]["leaseTransitions"])

    async def clear(self, *kinds: str) -> None:
        """Delete all objects of these kinds, and those that come of it, and wait until they are gone.

        All at once, as one may have to wait for another's end.
        """
        while there := [(kind, name) for kind in kinds for name in await self._names(kind)]:
            for kind, name in there:
                await self.delete(kind, name)
            for kind, name in there:
                await self.wait_gone(kind, name)

    async def _names(self, kind: str) -> list[str]:
        pages = [page async for page in self.client.list_pages(OUR_PATHS[kind].collection())]
        return [item["metadata"]["name"] for page in pages for item in page["items"]]

    @staticmethod
    def _space(kind: str) -> str:
        return SPACE if OUR_PATHS[kind].namespaced else ""


@contextlib.asynccontextmanager
async def rig(control_plane: ControlPlane, folder: Path) -> AsyncIterator[Rig]:
    """Build a rig, and leave the API server as it was."""
    async with KubeClient(await read_connection(control_plane.kubeconfig)) as client:
        built = Rig(control_plane, client, folder)
        try:
            yield built
            await built.clear(*_MADE)
            await built.clear("VMNode")
        finally:
            for identity in list(built.operators):
                await built.stop_operator(identity)
            for node in built.nodes.values():
                await node.stop()


__all__ = ["ConflictError", "Operator", "Rig", "rig", "until"]
