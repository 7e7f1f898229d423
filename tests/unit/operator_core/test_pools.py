"""Pools of a VMNode: what the node is told, and what its administrator reads."""

from datetime import UTC, datetime
from typing import Any

import pytest

from virtfleet_api.pool import Pool, PoolSet, PoolType
from virtfleet_api.report import NodeReport, PoolReport
from virtfleet_api.vm_node import VMNode, VMNodeStatus
from virtfleet_operator.core.events import node_events
from virtfleet_operator.core.pools import compile_pools
from virtfleet_operator.core.summarise import NodeFacts, summarise_node

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
GIB = 1 << 30
FAST = {"name": "fast", "path": "/srv/pools/fast"}


def node(*pools: dict[str, Any], status: VMNodeStatus | None = None) -> VMNode:
    made = VMNode.model_validate({"metadata": {"name": "a", "generation": 1}, "spec": {"pools": list(pools)}})
    return made.model_copy(update={"status": status}) if status else made


def pool(name: str = "default", **more: Any) -> PoolReport:
    return PoolReport(name=name, **({"capacity_bytes": 100 * GIB, "free_bytes": 50 * GIB} | more))


def facts(*pools: PoolReport, refused: str = "") -> NodeFacts:
    report = NodeReport(
        name="a",
        daemon_version="",
        libvirt_version="",
        qemu_version="",
        hypervisor="qemu",
        architecture="x86_64",
        cpus=4,
        cpu_frequency_hz=1,
        memory_bytes=GIB,
        pools=pools,
        labels={},
    )
    return NodeFacts(report=report, heard=True, pools_refused=refused)


def said(status: VMNodeStatus) -> dict[str, tuple[str, str, str]]:
    return {c.type: (c.status.value, c.reason, c.message) for c in status.conditions}


def test_the_node_is_told_every_pool_as_a_whole() -> None:
    shared = {"name": "nfs", "type": "Shared", "path": "/mnt/nfs", "overcommit": "2.5", "watermark": "80%"}
    assert compile_pools(node(FAST, shared)) == PoolSet(
        items=(
            Pool(name="fast", path="/srv/pools/fast"),
            Pool(name="nfs", type=PoolType.SHARED, path="/mnt/nfs", overcommit="2.5", watermark="80%"),
        )
    )


def test_a_pool_shows_what_it_has_and_what_is_promised() -> None:
    found = pool("nfs", type=PoolType.SHARED, committed_bytes=70 * GIB, limit_bytes=250 * GIB, reflink=True)
    (shown,) = summarise_node(node(), facts(found), NOW).to_json_dict()["pools"]  # type: ignore[misc]
    assert shown == {
        "name": "nfs",
        "type": "Shared",
        "capacity": "100Gi",
        "free": "50Gi",
        "committed": "70Gi",
        "committable": "250Gi",
        "nearlyFull": False,
        "reflink": True,
    }


def test_pressure_names_the_pool_and_goes_again_with_an_event_each() -> None:
    calm = summarise_node(node(), facts(pool()), NOW)
    assert "Pressure" not in said(calm)
    full = summarise_node(node(status=calm), facts(pool(nearly_full=True, watermark="80%")), NOW)
    status, reason, message = said(full)["Pressure"]
    assert (status, reason) == ("True", "PoolNearlyFull")
    assert message.startswith("Nearly full: pool default (80% used).")
    (event,) = node_events(calm, full)
    assert (event.type, event.reason, event.message) == ("Warning", "PoolNearlyFull", message)
    assert node_events(full, full) == ()
    (event,) = node_events(full, calm)
    assert (event.type, event.reason) == ("Normal", "PressureRelieved")


@pytest.mark.parametrize(
    ("spec", "found", "condition"),
    [
        ((), facts(pool()), None),
        ((FAST,), facts(pool(), pool("fast")), ("True", "Ready", "Every pool is as the spec wants it.")),
        ((FAST,), facts(pool()), ("False", "Synchronizing", "The node has not reported pool fast yet.")),
        (
            (FAST,),
            facts(pool(), pool("fast", capacity_bytes=0, free_bytes=0, problem="Its path is bad: write another.")),
            ("False", "PoolNotReady", "pool fast: Its path is bad: write another."),
        ),
        (
            (),
            facts(pool("old", problem="It is not wanted any more; it holds 1 image.", leaving=True)),
            ("False", "PoolNotReady", "pool old: It is not wanted any more; it holds 1 image."),
        ),
        ((FAST,), facts(pool(), refused="a refuses: no such path"), ("False", "Refused", "a refuses: no such path")),
    ],
)
def test_pools_are_as_they_are_wanted_or_say_why_not(
    spec: tuple[dict[str, Any], ...], found: NodeFacts, condition: tuple[str, str, str] | None
) -> None:
    assert said(summarise_node(node(*spec), found, NOW)).get("PoolsReady") == condition


def test_a_pool_that_cannot_be_had_is_told_once() -> None:
    bad = summarise_node(node(FAST), facts(pool("fast", capacity_bytes=0, free_bytes=0, problem="Bad: write.")), NOW)
    (ready, event) = node_events(VMNodeStatus(), bad)
    assert (ready.reason, event.type, event.reason) == ("Ready", "Warning", "PoolNotReady")
    assert node_events(bad, bad) == ()


def test_what_was_said_of_pools_stays_while_the_node_is_silent() -> None:
    full = summarise_node(node(FAST), facts(pool("fast", nearly_full=True)), NOW)
    silent = summarise_node(node(FAST, status=full), NodeFacts(), NOW)
    assert said(silent)["Pressure"] == said(full)["Pressure"]
    assert said(silent)["PoolsReady"] == said(full)["PoolsReady"]
