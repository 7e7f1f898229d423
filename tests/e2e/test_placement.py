"""Where machines run, as a user and an administrator say it: apart, not in maintenance, not on a taint; and why not.

The machines are never started: a machine that is off is bound to a node, and counts there, as one that runs.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fleet import Fleet, eventually

AT_ONCE_SECONDS = 10.0
"""From the end of maintenance until the machine has a node: half a second, and more when tests share the machine."""

WEB = {"labelSelector": {"matchLabels": {"app": "web"}}}
APART = {"vmAntiAffinity": {"required": [WEB]}}


def configure(fleet: Fleet, node: str, **spec: Any) -> None:
    fleet.cluster.kubectl.run("patch", "vmnode", node, "--type=merge", "-p", json.dumps({"spec": spec}))


def create(fleet: Fleet, name: str, **spec: Any) -> None:
    manifest = {
        "apiVersion": "virtfleet.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"runStrategy": "Halted", "memory": {"guest": "64Mi"}, **spec},
    }
    fleet.cluster.kubectl.apply(manifest)


def place_of(fleet: Fleet, name: str) -> str:
    return str(fleet.wait_status(name, "Stopped")["nodeName"])


def refusal(fleet: Fleet, name: str) -> str:
    fleet.wait_status(name, "Unschedulable")
    return str(fleet.condition(name, "Scheduled")["message"])


@pytest.fixture
def nodes(fleet: Fleet) -> Iterator[tuple[str, str]]:
    first, second = (node.name for node in fleet.cluster.nodes)
    try:
        yield first, second
    finally:
        fleet.delete("web-1", "web-2", "web-3", "tolerant", "rare")
        for name in (first, second):
            configure(fleet, name, maintenance=None, taints=None)


def test_machines_go_where_they_may_and_say_why_not(fleet: Fleet, nodes: tuple[str, str]) -> None:
    first, second = nodes
    create(fleet, "web-1", affinity=APART)
    create(fleet, "web-2", affinity=APART)
    assert {place_of(fleet, "web-1"), place_of(fleet, "web-2")} == {first, second}
    create(fleet, "web-3", affinity=APART)
    assert refusal(fleet, "web-3") == "0/2 nodes fit: 2 near a machine of its vmAntiAffinity"

    configure(fleet, second, maintenance=True)
    eventually(lambda: fleet.condition(second, "Schedulable", "vmnode").get("reason") == "Maintenance", "it is said")
    shown = fleet.cluster.kubectl.run("get", "vmn", second)
    assert dict(zip(*(line.split() for line in shown.splitlines()), strict=True))["SCHEDULING"] == "Maintenance"
    fleet.delete("web-1", "web-2")
    assert place_of(fleet, "web-3") == first
    create(fleet, "web-1", affinity=APART)
    assert refusal(fleet, "web-1") == "0/2 nodes fit: 1 in maintenance, 1 near a machine of its vmAntiAffinity"
    begun = time.monotonic()
    configure(fleet, second, maintenance=False)
    assert place_of(fleet, "web-1") == second
    assert time.monotonic() - begun < AT_ONCE_SECONDS


def test_a_taint_keeps_off_who_does_not_tolerate_it(fleet: Fleet, nodes: tuple[str, str]) -> None:
    first, second = nodes
    taint = {"key": "example.org/gpu", "value": "a10", "effect": "NoSchedule"}
    configure(fleet, first, taints=[taint])
    configure(fleet, second, taints=[taint])
    create(fleet, "web-1")
    assert refusal(fleet, "web-1") == "0/2 nodes fit: 2 with taint example.org/gpu=a10"
    create(fleet, "tolerant", tolerations=[{"key": "example.org/gpu", "operator": "Exists"}])
    assert place_of(fleet, "tolerant") in nodes
    create(fleet, "rare", cpu={"model": "Unobtainium"}, tolerations=[{"operator": "Exists"}])
    assert refusal(fleet, "rare") == "0/2 nodes fit: 2 unable to give CPU model Unobtainium"
    configure(fleet, second, taints=[])
    assert place_of(fleet, "web-1") == second
