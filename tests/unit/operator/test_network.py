"""What the network asks of OVN when objects come, change and go."""

from dataclasses import replace
from ipaddress import IPv4Network, ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from virtfleet_api.names import API_VERSION
from virtfleet_api.virtual_switch import DefaultPolicy
from virtfleet_operator.core.network.names import COMMON_OWNER, group_owner, port_owner, switch_owner
from virtfleet_operator.core.network.topology import PortPlan, SubnetPlan, SwitchPlan
from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.reconcile.catalog import GROUP, INDEXERS, SWITCH, CacheCatalog
from virtfleet_operator.reconcile.network import Network
from virtfleet_operator.reconcile.restore import restore_network

SUBNET = SubnetPlan(IPv4Network("10.1.0.0/24"), ip_address("10.1.0.1"), (), None, dhcp=True)
TENANT = SwitchPlan("tenant", "u", None, (None,), 1442, DefaultPolicy.ALLOW, (SUBNET,), None)
PORT = PortPlan(
    id="p1",
    machine="shop/web-1",
    interface="eth0",
    switch="tenant",
    vlan=None,
    mac="52:54:00:00:00:01",
    addresses=(ip_address("10.1.0.7"),),
    allowed=(),
    anti_spoof=True,
    groups=("g1",),
    outbound=None,
    host_name="web-1.shop",
    up=True,
)


class Recorder:
    """OVN and the queue, as far as the network asks them."""

    trouble: str | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.rows: dict[str, Any] = {}

    def set(self, owner: str, rows: Any) -> None:
        self.calls.append(("set", owner))
        self.rows[owner] = rows

    def remove(self, owner: str) -> None:
        self.calls.append(("remove", owner))
        self.rows.pop(owner, None)

    def refusal(self, owner: str) -> str | None:
        return "too long a name" if owner == switch_owner("refused") else None

    def keep(self, owner: str) -> None:
        self.calls.append(("keep", owner))

    def complete(self) -> None:
        self.calls.append(("complete",))

    def switch_ports_changed(self, name: str) -> None:
        self.calls.append(("switch", name))

    def group_members_changed(self, uid: str) -> None:
        self.calls.append(("group", uid))

    def taken(self) -> list[tuple[str, ...]]:
        """Return what was asked since the last time."""
        taken, self.calls = self.calls, []
        return taken


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def network(recorder: Recorder) -> Network:
    built = Network(recorder, recorder)
    assert recorder.taken() == [("set", COMMON_OWNER)]
    built.put_switch(TENANT)
    built.put_ports("m1", (PORT,))
    recorder.taken()
    return built


def test_what_is_said_twice_is_asked_once(network: Network, recorder: Recorder) -> None:
    network.put_switch(TENANT)
    network.put_ports("m1", (PORT,))
    assert recorder.taken() == []


def test_one_port_more_touches_that_port_and_its_counts(network: Network, recorder: Recorder) -> None:
    second = replace(PORT, id="p2", interface="eth1", groups=("g2",))
    network.put_ports("m1", (PORT, second))
    assert recorder.taken() == [("set", port_owner("p2")), ("group", "g2"), ("switch", "tenant")]
    assert (len(network.ports_on("tenant")), network.members("g1"), network.members("g2")) == (2, 1, 1)


def test_a_machine_that_goes_takes_its_ports_along(network: Network, recorder: Recorder) -> None:
    network.drop_ports("m1")
    assert recorder.taken() == [("remove", port_owner("p1")), ("group", "g1"), ("switch", "tenant")]
    assert (network.ports_of("m1"), network.members("g1"), list(network.ports_on("tenant"))) == ((), 0, [])


def test_a_vlan_that_nobody_used_is_made_with_its_first_port(network: Network, recorder: Recorder) -> None:
    network.put_ports("m2", (replace(PORT, id="p2", vlan=7),))
    assert recorder.taken()[:2] == [("set", switch_owner("tenant")), ("set", port_owner("p2"))]
    assert {"tenant", "tenant.7"} <= {row.key.name for row in recorder.rows[switch_owner("tenant")]}


def test_a_changed_switch_is_followed_by_its_ports(network: Network, recorder: Recorder) -> None:
    network.put_switch(replace(TENANT, default_policy=DefaultPolicy.DENY))
    assert recorder.taken() == [("set", switch_owner("tenant")), ("set", port_owner("p1"))]


def test_a_port_waits_for_its_switch(recorder: Recorder) -> None:
    network = Network(recorder, recorder)
    network.put_ports("m1", (PORT,))
    assert ("set", port_owner("p1")) not in recorder.taken()
    network.put_switch(TENANT)
    assert recorder.taken() == [("set", switch_owner("tenant")), ("set", port_owner("p1"))]


def test_a_switch_that_is_not_valid_now_is_left_as_it_is(network: Network, recorder: Recorder) -> None:
    network.keep_switch("tenant")
    assert recorder.taken() == [], "it is known"
    network.keep_switch("other")
    assert recorder.taken() == [("keep", switch_owner("other"))]


def test_what_stands_in_the_way_of_a_switch_is_told(network: Network, recorder: Recorder) -> None:
    assert (network.obstacle_of_switch("tenant"), network.obstacle_of_group("g1")) == ("", "")
    assert network.obstacle_of_switch("refused") == "too long a name"
    recorder.trouble = "no answer in time"
    assert network.obstacle_of_switch("tenant") == "no answer in time"


def test_a_new_leader_leaves_what_is_not_valid_now_as_it_is(recorder: Recorder) -> None:
    cache = Cache(INDEXERS)
    for kind, name, spec in (
        (SWITCH, "well", {"type": "Overlay"}),
        (SWITCH, "ill", {"type": "Overlay", "subnet": {"cidr": "none"}}),
        (GROUP, "well", {}),
        (GROUP, "ill", {"ingress": [{"from": [{"cidr": "none"}]}]}),
    ):
        metadata = {"name": name, "namespace": "shop", "uid": f"{name}-uid", "resourceVersion": "1"}
        cache.put(kind, {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec})
    network = Network(recorder, recorder)
    recorder.taken()
    context: Any = SimpleNamespace(cache=cache, catalog=CacheCatalog(cache), network=network)
    restore_network(context)
    calls = recorder.taken()
    assert calls.pop() == ("complete",), "nothing is decided before all is known"
    assert set(calls) == {
        ("set", switch_owner("well")),
        ("keep", switch_owner("ill")),
        ("set", group_owner("well-uid")),
        ("keep", group_owner("ill-uid")),
    }
