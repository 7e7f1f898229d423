"""The nodes of the fleet: one stream each, and the instructions that go to them.

An instruction is sent only when it differs from what the daemon process acknowledged last, so reconciling a converged
object costs nothing on the wire.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import aiohttp

from virtfleet_api.base import Document
from virtfleet_api.image import Image, ImageReport, PieceQuery, UploadState
from virtfleet_api.machine import Machine, Run
from virtfleet_api.node_api import InterfaceList, ProblemReason
from virtfleet_api.node_network import NodeNetwork
from virtfleet_api.pool import PoolSet
from virtfleet_api.snapshot import MachineSnapshot
from virtfleet_operator.fleet.client import Dialer, NodeClient
from virtfleet_operator.fleet.console import open_console
from virtfleet_operator.fleet.errors import NodeRefusedError, NodeUnavailableError, StaleEpochError
from virtfleet_operator.fleet.state import Contact, FleetListener, NodeState
from virtfleet_operator.fleet.stream import SILENCE_SECONDS, NodeStream

A = TypeVar("A")

_POOLS: Final = "pools"
"""Stands for the set of a node's pools where machines and images have their UID."""

_NETWORK: Final = "network"
"""Stands for what a node is told of the network."""


@dataclass(frozen=True)
class Member:
    """A node of the fleet."""

    client: NodeClient
    state: NodeState
    task: asyncio.Task[None]


class Fleet:
    """Every node that has an address."""

    def __init__(
        self,
        dialer: Dialer,
        listener: FleetListener,
        on_stale: Callable[[str], None],
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        """Take who listens for changes, and what to do when a node says that there is a newer leader.

        A node may lie about that, so it is a reason to look at the Lease, not a reason to end.
        """
        self._dialer = dialer
        self._listener = listener
        self._on_stale = on_stale
        self._silence_seconds = silence_seconds
        self._members: dict[str, Member] = {}

    def __iter__(self) -> Iterator[NodeState]:
        return (member.state for member in self._members.values())

    def node(self, name: str) -> NodeState | None:
        """Return what is known of a node."""
        member = self._members.get(name)
        return member.state if member else None

    def contact(self, name: str) -> Contact:
        """Say whether a node is heard; one that is not in the fleet is lost."""
        member = self._members.get(name)
        return member.state.contact if member else Contact.LOST

    def address(self, name: str) -> str | None:
        """Return host:port of a node; None if it is not in the fleet."""
        member = self._members.get(name)
        return member.client.address if member else None

    def reporting(self, uid: str) -> Collection[str]:
        """Return the nodes that report a machine with this UID."""
        return [m.state.name for m in self._members.values() if uid in m.state.machines]

    def ensure(self, name: str, address: str) -> None:
        """Follow this node at this address from now on."""
        member = self._members.get(name)
        if member and member.client.address == address:
            return
        state = member.state if member else NodeState(name, self._listener)
        if member:
            member.task.cancel()
        client = NodeClient(self._dialer, name, address)
        stream = NodeStream(client, state, self._silence_seconds)
        task = asyncio.create_task(stream.run(), name=f"stream of {name}")
        self._members[name] = Member(client, state, task)

    def drop(self, name: str) -> None:
        """Follow this node no more."""
        if member := self._members.pop(name, None):
            member.task.cancel()
            self._listener.everything_changed(name)

    async def close(self) -> None:
        """Stop following any node."""
        tasks = [member.task for member in self._members.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def knows_machine(self, node: str, machine: Machine) -> bool:
        """Say whether a node has acknowledged just this document."""
        state = self.node(node)
        return state is not None and _Instruction(state, machine.uid, _digest(machine)).known()

    async def put_machine(self, node: str, machine: Machine) -> None:
        """Instruct a node about a machine unless it knows.

        Raises:
            NodeError: the node did not acknowledge it.
        """
        member = self._member(node)
        if machine.run is not Run.ABSENT:
            member.state.gone.pop(machine.uid, None)
        instruction = _Instruction(member.state, machine.uid, _digest(machine))
        if not instruction.known():
            report = await self._guard(member.client.put_machine(machine))
            instruction.acknowledge()
            member.state.take_answer(report)

    async def put_image(self, node: str, image: Image) -> None:
        """Instruct a node about an image unless it knows.

        Raises:
            NodeError: the node did not acknowledge it.
        """
        await self._tell(node, image.uid, image, lambda client: client.put_image(image))

    async def put_snapshot(self, node: str, snapshot: MachineSnapshot) -> None:
        """Instruct a node about a snapshot of a machine unless it knows.

        Raises:
            NodeError: the node did not acknowledge it.
        """
        member = self._member(node)
        instruction = _Instruction(member.state, snapshot.uid, _digest(snapshot))
        if not instruction.known():
            report = await self._guard(member.client.put_snapshot(snapshot))
            instruction.acknowledge()
            if snapshot.present:
                member.state.take_snapshot_answer(report)

    async def put_pools(self, node: str, pools: PoolSet) -> None:
        """Instruct a node about its pools unless it knows.

        Raises:
            NodeError: the node did not acknowledge it.
        """
        await self._tell(node, _POOLS, pools, lambda client: client.put_pools(pools))

    async def put_network(self, node: str, network: NodeNetwork) -> None:
        """Instruct a node about its physical networks and peers unless it knows.

        Raises:
            NodeError: the node did not acknowledge it.
        """
        await self._tell(node, _NETWORK, network, lambda client: client.put_network(network))

    async def _tell(
        self, node: str, key: str, document: Document, send: Callable[[NodeClient], Awaitable[object]]
    ) -> None:
        """Send a node a document unless it knows it."""
        member = self._member(node)
        instruction = _Instruction(member.state, key, _digest(document))
        if not instruction.known():
            await self._guard(send(member.client))
            instruction.acknowledge()

    async def delete_machine(self, node: str, uid: str) -> None:
        """Have a node remove a machine by what it has stored itself.

        Raises:
            NodeError: the node did not acknowledge it.
        """
        member = self._member(node)
        try:
            member.state.take_answer(await self._guard(member.client.delete_machine(uid)))
        except NodeRefusedError as error:
            if error.reason is not ProblemReason.NOT_FOUND:
                raise
            member.state.mark_gone(uid)

    async def list_interfaces(self, node: str, uid: str) -> InterfaceList:
        """Ask a node what has passed a machine's network cards.

        Raises:
            NodeError: the node does not answer, or has no such machine.
        """
        return await self._guard(self._member(node).client.list_interfaces(uid))

    def open_console(
        self, node: str, uid: str, query: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Connect to a machine's console.

        Raises:
            NodeError: the node is not in the fleet, cannot be reached or refuses.
        """
        return open_console(self._dialer, node, self._member(node).client.address, uid, query)

    def open_display(self, node: str, uid: str) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Connect to a machine's display.

        Raises:
            NodeError: the node is not in the fleet, cannot be reached or refuses.
        """
        return open_console(self._dialer, node, self._member(node).client.address, uid, {}, "vnc")

    def open_forward(
        self, node: str, uid: str, query: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
        """Connect to a TCP port of a machine's guest.

        Raises:
            NodeError: the node is not in the fleet, cannot be reached or refuses; or the guest does.
        """
        return open_console(self._dialer, node, self._member(node).client.address, uid, query, "portforward")

    async def upload_state(self, node: str, uid: str) -> UploadState:
        """Ask a node how much of an image's upload is there.

        Raises:
            NodeError: the node cannot be reached or refuses.
        """
        return await self._guard(self._member(node).client.upload_state(uid))

    async def send_piece(self, node: str, uid: str, piece: PieceQuery, body: AsyncIterator[bytes]) -> UploadState:
        """Pass on a piece of an upload.

        Raises:
            NodeError: the node cannot be reached or refuses.
        """
        return await self._guard(self._member(node).client.send_piece(uid, piece, body))

    def uploading(self, uid: str) -> dict[str, ImageReport]:
        """Return what the nodes that are heard say of an image, by name."""
        states = [member.state for member in self._members.values() if member.state.contact is Contact.HEARD]
        return {state.name: state.images[uid] for state in states if uid in state.images}

    def _member(self, node: str) -> Member:
        member = self._members.get(node)
        if member is None:
            raise NodeUnavailableError(f"{node} has no address: no daemon of that name has enrolled.")
        return member

    async def _guard(self, request: Awaitable[A]) -> A:
        try:
            return await request
        except StaleEpochError as error:
            self._on_stale(str(error))
            raise


@dataclass(frozen=True)
class _Instruction:
    """One document on its way, with the daemon process it is meant for."""

    state: NodeState
    uid: str
    digest: str
    instance: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "instance", self.state.instance)

    def known(self) -> bool:
        """Say whether this daemon process has acknowledged just this."""
        return self.state.acknowledged.get(self.uid) == self.digest

    def acknowledge(self) -> None:
        """Remember it, unless another process has taken over meanwhile."""
        if self.state.instance == self.instance:
            self.state.acknowledged[self.uid] = self.digest


def _digest(document: Document) -> str:
    return hashlib.sha256(document.model_dump_json().encode()).hexdigest()
