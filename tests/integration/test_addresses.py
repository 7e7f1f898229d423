"""Managed addresses against a real API server: no two cards ever have one, whatever happens to operators in between.

VIRTFLEET_CHAOS_SEED repeats a run.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from virtfleet_api.names import API_VERSION
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_operator.core.verdict import Invalid, Waiting
from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.connection import read_connection
from virtfleet_operator.kube.errors import KubeError
from virtfleet_operator.kube.paths import OUR_PATHS, Key
from virtfleet_operator.metrics import Metrics
from virtfleet_operator.reconcile.catalog import ADDRESS, INDEXERS, MACHINE, SWITCH, CacheCatalog
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.network import Network
from virtfleet_operator.reconcile.ports import connect_cards
from virtfleet_operator.reconcile.restore import restore_network
from virtfleet_operator.reconcile.vm_address import reconcile_address

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED = int(os.environ.get("VIRTFLEET_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
COOL_DOWN = timedelta(minutes=5)


class DiedError(Exception):
    """The operator was killed here."""


class Mortal(KubeClient):
    """A client whose process dies after or before a write, when chance has it."""

    chance: random.Random | None = None
    risk = 0.0

    async def _request(self, method: str, path: str, **rest: Any) -> Any:
        if method in {"POST", "PATCH", "DELETE"} and self.chance and self.chance.random() < self.risk:
            if self.chance.random() < 0.5:
                await super()._request(method, path, **rest)
            raise DiedError
        return await super()._request(method, path, **rest)


class Nothing:
    """Takes what the network asks for: OVN and the queue are not asked here."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_: None


@dataclass
class World:
    """What exists, as the API server's watches would tell it."""

    client: Mortal
    switch: str
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    first: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    """The address each machine was seen with first, and when."""
    now: datetime = datetime(2026, 11, 25, tzinfo=UTC)

    async def operator(self) -> Context:
        """Return a new operator process, which has just read everything."""
        cache = Cache(INDEXERS)
        cache.put(SWITCH, await self.client.get(OUR_PATHS[SWITCH].object("", self.switch)))
        for body in self.machines.values():
            cache.put(MACHINE, deepcopy(body))
        async for page in self.client.list_pages(OUR_PATHS[ADDRESS].collection()):
            for item in page["items"]:
                if item["spec"]["switch"] == self.switch:
                    cache.put(ADDRESS, item)
        nothing: Any = Nothing()
        context = Context(
            client=self.client,
            cache=cache,
            catalog=CacheCatalog(cache),
            loads=nothing,
            fleet=nothing,
            secrets=nothing,
            events=nothing,
            metrics=Metrics(),
            clock=lambda: self.now,
            address_cool_down=COOL_DOWN,
            network=Network(nothing, nothing),
        )
        restore_network(context)
        return context

    def add(self, address: str | None = None) -> str:
        """Make a machine with a card on the switch; its UID is returned."""
        uid = str(uuid4())
        card = {"name": "eth0", "switch": self.switch} | ({"ipAddress": address} if address else {})
        metadata = {"name": f"m-{uid[:8]}", "namespace": "default", "uid": uid, "resourceVersion": "1"}
        spec = {"memory": {"guest": "128Mi"}, "networks": [card]}
        self.machines[uid] = {"apiVersion": API_VERSION, "kind": MACHINE, "metadata": metadata, "spec": spec}
        return uid

    def remove(self, context: Context, uid: str) -> None:
        """Have a machine gone, its domain included."""
        body = self.machines.pop(uid)
        context.cache.remove(Key(MACHINE, "default", body["metadata"]["name"]), uid)
        if context.network:
            context.network.drop_ports(uid)


async def connect(context: Context, world: World, uid: str) -> Waiting | Invalid | None:
    context.cache.put(MACHINE, deepcopy(world.machines[uid]))
    (stored,) = context.cache.find(MACHINE, "uid", uid)
    return await connect_cards(context, stored.resource)  # type: ignore[arg-type]


async def tidy(context: Context) -> None:
    """Look at every address, as the queue does, and hear from the watch which ones are gone."""
    for stored in list(context.cache.all(ADDRESS)):
        await reconcile_address(context, stored.key)
    listed = context.client.list_pages(OUR_PATHS[ADDRESS].collection())
    there = {item["metadata"]["uid"] async for page in listed for item in page["items"]}
    for stored in list(context.cache.all(ADDRESS)):
        if stored.uid not in there:
            context.cache.remove(stored.key, stored.uid)


def has(context: Context, uid: str) -> str | None:
    """Return the address of the machine's port, if it has one."""
    ports = context.network.ports_of(uid) if context.network else ()
    return str(ports[0].addresses[0]) if ports else None


@pytest_asyncio.fixture(loop_scope="module")
async def world(control_plane: ControlPlane) -> AsyncIterator[World]:
    async with Mortal(await read_connection(control_plane.kubeconfig)) as client:
        name = f"sw-{uuid4().hex[:8]}"
        spec = {"subnet": {"cidr": "10.9.0.0/28", "gateway": "10.9.0.1", "reserved": ["10.9.0.14"]}}
        body = {"apiVersion": API_VERSION, "kind": SWITCH, "metadata": {"name": name}, "spec": spec}
        await client.create(OUR_PATHS[SWITCH].collection(), body)
        yield World(client, name)
        async for page in client.list_pages(OUR_PATHS[ADDRESS].collection()):
            for item in page["items"]:
                await client.delete(OUR_PATHS[ADDRESS].object("", item["metadata"]["name"]))
        await client.delete(OUR_PATHS[SWITCH].object("", name))


class Lives:
    """Machines that come and go while operators die."""

    def __init__(self, world: World, context: Context, chance: random.Random) -> None:
        self.world, self.context, self.chance = world, context, chance
        self.left: dict[str, datetime] = {}

    async def step(self) -> None:
        """Do one thing, with an operator that may die of it."""
        deed = self.chance.choice([self.add, self.add, self.delete, self.look, self.wait, self.restart])
        try:
            await deed()
        except (DiedError, KubeError):
            await self.restart()

    async def add(self) -> None:
        if len(self.world.machines) < 14:
            await connect(self.context, self.world, self.world.add())

    async def delete(self) -> None:
        if self.world.machines:
            uid = self.chance.choice(sorted(self.world.machines))
            if address := has(self.context, uid):
                self.left[address] = self.world.now
            self.world.remove(self.context, uid)

    async def look(self) -> None:
        for uid in list(self.world.machines):
            await connect(self.context, self.world, uid)
        await tidy(self.context)

    async def wait(self) -> None:
        self.world.now += timedelta(seconds=self.chance.randrange(240))

    async def restart(self) -> None:
        self.context = await self.world.operator()

    def check(self) -> None:
        """Check that no two machines have one address, that each keeps its own, and that none comes back too soon."""
        held = {uid: address for uid in self.world.machines if (address := has(self.context, uid))}
        assert len(set(held.values())) == len(held), f"VIRTFLEET_CHAOS_SEED={SEED}: {held}"
        for uid, address in held.items():
            first = self.world.first.setdefault(uid, (address, self.world.now))
            assert first[0] == address, f"VIRTFLEET_CHAOS_SEED={SEED}: a machine's address changed to {address}"
            if first[1] == self.world.now and address in self.left:
                cooled = self.world.now - self.left[address]
                assert cooled >= COOL_DOWN or self.left[address] > first[1], f"VIRTFLEET_CHAOS_SEED={SEED}"


async def test_random_lives_and_deaths_never_give_one_address_to_two_machines(world: World) -> None:
    chance = world.client.chance = random.Random(SEED)
    world.client.risk = 0.15
    lives = Lives(world, await world.operator(), chance)
    for _ in range(250):
        await lives.step()
        lives.check()
    world.client.risk = 0.0
    for uid in list(world.machines)[11:]:
        del world.machines[uid]
    for _ in range(3):
        world.now += 2 * COOL_DOWN
        await lives.restart()
        await tidy(lives.context)
    await lives.restart()
    assert [await connect(lives.context, world, uid) for uid in world.machines] == [None] * len(world.machines)
    lives.check()
    held = {stored.resource.spec.holder.uid for stored in lives.context.cache.all(ADDRESS)}  # type: ignore[union-attr]
    assert held == set(world.machines), f"VIRTFLEET_CHAOS_SEED={SEED}: nothing leaks"


async def test_two_operators_that_both_think_they_lead_share_the_subnet(world: World) -> None:
    one, other = await world.operator(), await world.operator()
    uids = [world.add() for _ in range(12)]
    await asyncio.gather(*(connect(context, world, uid) for context in (one, other) for uid in uids[:6]))
    await asyncio.gather(*(connect((one, other)[n % 2], world, uid) for n, uid in enumerate(uids[6:])))
    final = await world.operator()
    for uid in uids:
        assert await connect(final, world, uid) is None or uid in uids[6:]
    addresses = [has(final, uid) for uid in uids if has(final, uid)]
    assert len(set(addresses)) == len(addresses) >= 6


async def test_an_exhausted_subnet_says_so_and_goes_on_after_the_cool_down(world: World) -> None:
    context = await world.operator()
    uids = [world.add() for _ in range(11)]
    assert [await connect(context, world, uid) for uid in uids] == [None] * 11
    late = world.add()
    said = await connect(context, world, late)
    assert isinstance(said, Waiting)
    assert said.reason == "SubnetExhausted"
    assert f"all 11 addresses of 10.9.0.0/28 on VirtualSwitch {world.switch} are in use" in said.message
    gone = uids[3]
    freed = has(context, gone)
    world.remove(context, gone)
    await tidy(context)
    assert isinstance(await connect(context, world, late), Waiting), "it cools down"
    world.now += COOL_DOWN + timedelta(seconds=1)
    await tidy(context)
    assert await connect(context, world, late) is None
    assert has(context, late) == freed


async def test_an_address_that_is_asked_for_is_given_or_its_holder_named(world: World) -> None:
    context = await world.operator()
    first = world.add("10.9.0.7")
    assert await connect(context, world, first) is None
    assert has(context, first) == "10.9.0.7"
    second = world.add("10.9.0.7")
    said = await connect(context, world, second)
    assert isinstance(said, Invalid)
    holder = world.machines[first]["metadata"]["name"]
    assert f"is held by VirtualMachine default/{holder} (eth0)" in said.message
    reserved = world.add("10.9.0.14")
    assert await connect(context, world, reserved) is None, "what the switch never assigns may be asked for"
    # Its machine is made again under the same name: it need not wait for its own address to cool down.
    world.remove(context, first)
    await tidy(context)
    assert await connect(context, world, second) is None
    assert has(context, second) == "10.9.0.7"


async def test_an_address_deleted_by_hand_is_given_to_its_machine_again(world: World) -> None:
    context = await world.operator()
    uid = world.add()
    assert await connect(context, world, uid) is None
    address = has(context, uid)
    (stored,) = context.cache.all(ADDRESS)
    await world.client.delete(OUR_PATHS[ADDRESS].object("", stored.key.name))
    context.cache.remove(stored.key, stored.uid)
    shown = {"name": "eth0", "mac": "52:54:00:00:00:01", "switch": world.switch, "ipAddresses": [address]}
    world.machines[uid]["status"] = {"interfaces": [shown]}
    world.machines[uid]["metadata"]["resourceVersion"] = "2"
    assert await connect(context, world, uid) is None
    assert has(context, uid) == address
