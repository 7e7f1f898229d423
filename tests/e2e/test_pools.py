"""Pools of a VMNode as an administrator has them: added to a running node, used, kept while not empty, gone."""

import json
from pathlib import Path

from fleet import Fleet, eventually
from small_file_system import mounted

POOLS = "/var/lib/virtfleet/pools"

WRITER = """#!/bin/sh
dd if=/dev/urandom of=/tmp/data bs=1M count=24 2>/dev/null
dd if=/tmp/data of=/dev/vda bs=1M conv=fsync 2>/dev/null
wrote=$(sha256sum </tmp/data)
found=$(dd if=/dev/vda bs=1M count=24 iflag=direct 2>/dev/null | sha256sum)
[ "$wrote" = "$found" ] && echo whole || echo broken
"""


def want(fleet: Fleet, node: str, *pools: dict[str, str]) -> None:
    fleet.cluster.kubectl.run("patch", "vmnode", node, "--type=merge", "-p", json.dumps({"spec": {"pools": pools}}))


def pools(fleet: Fleet, node: str) -> dict[str, dict[str, object]]:
    return {pool["name"]: pool for pool in fleet.status(node, "vmnode").get("pools", [])}


def wait_said(fleet: Fleet, node: str, text: str) -> None:
    eventually(lambda: text in fleet.condition(node, "PoolsReady", "vmnode").get("message", ""), text)


def test_a_pool_comes_is_used_and_goes_when_it_is_empty(fleet: Fleet) -> None:
    node = fleet.cluster.nodes[0]
    folder = node.directory / "virtfleet/pools/fast"
    want(fleet, node.name, {"name": "fast", "path": f"{POOLS}/fast", "watermark": "95%", "overcommit": "100"})
    wait_said(fleet, node.name, "Every pool is as the spec wants it.")
    fleet.machine("on-fast", disks=[{"name": "root", "size": "1Gi", "pool": "fast", "source": {"blank": {}}}])
    found = fleet.wait_ready("on-fast")
    assert found["status"]["nodeName"] == node.name, "the other node has no such pool"
    (disk,) = found["status"]["disks"]
    assert (disk["pool"], disk["capacity"], disk["allocated"]) == ("fast", "1Gi", "1Mi")
    eventually(lambda: pools(fleet, node.name)["fast"].get("committed") == "1Gi", "the disk is counted")

    series = 'virtfleet_node_disk_allocated_bytes{disk="root",machine="on-fast",namespace="default",pool="fast"} '
    metrics = ("curl", "-sf", f"http://{node.address}:9100/metrics")
    eventually(lambda: series in node.run(*metrics), "the disk is measured")

    want(fleet, node.name)
    wait_said(fleet, node.name, "goes once it is empty; it holds disks of 1 machine")
    assert fleet.status("on-fast")["printableStatus"] == "Running"
    fleet.delete("on-fast")
    eventually(lambda: "fast" not in pools(fleet, node.name), "the pool goes")
    assert not folder.exists()


def test_a_full_pool_stops_its_guest_and_says_so_until_there_is_room(fleet: Fleet) -> None:
    node = fleet.cluster.nodes[0]
    inside = Path(POOLS) / "small"
    with mounted(node.directory / "virtfleet/pools/small", 64, node=node, inside=inside) as path:
        want(fleet, node.name, {"name": "small", "path": str(inside)})
        wait_said(fleet, node.name, "Every pool is as the spec wants it.")
        (path / "ballast").write_bytes(bytes(40 << 20))
        disks = [{"name": "root", "size": "1Gi", "pool": "small", "source": {"blank": {}}}]
        fleet.machine("writer", disks=disks, cloudInit={"userData": WRITER})
        stopped = fleet.wait_status("writer", "Paused")
        for kind in ("Ready", "Paused"):
            assert fleet.condition("writer", kind)["reason"] == "PoolFull"
            assert fleet.condition("writer", kind)["message"].startswith("Pool small of the node is full")
        eventually(lambda: fleet.condition(node.name, "Pressure", "vmnode"), "the node has pressure")
        assert "pool small (90% used)" in fleet.condition(node.name, "Pressure", "vmnode")["message"]
        fleet.machine("late", disks=disks)
        fleet.wait_status("late", "Unschedulable")
        assert "1 with pool small nearly full" in fleet.condition("late", "Ready")["message"]

        (path / "ballast").unlink()
        found = fleet.wait_status("writer", "Running")
        assert found["machine"]["startedAt"] == stopped["machine"]["startedAt"]
        uid = fleet.get("writer")["metadata"]["uid"]
        eventually(lambda: "USERDATA whole" in fleet.console(node, uid), "the guest finds what it wrote")
        fleet.wait_ready("late")
        eventually(lambda: not fleet.condition(node.name, "Pressure", "vmnode"), "the pressure goes")
        reasons = fleet.cluster.kubectl.run("get", "events", "-A", "-o", "jsonpath={.items[*].reason}").split()
        assert {"PoolFull", "PoolNearlyFull", "PressureRelieved"} <= set(reasons)
        fleet.delete("writer", "late")
        want(fleet, node.name)
        eventually(lambda: "small" not in pools(fleet, node.name), "the pool goes")


def test_a_pool_outside_of_the_roots_is_refused_by_the_node(fleet: Fleet) -> None:
    node = fleet.cluster.nodes[0]
    want(fleet, node.name, {"name": "bad", "path": "/etc/bad"})
    wait_said(
        fleet, node.name, f"pool bad: Its path is not below the poolRoots of the node's configuration file ({POOLS})"
    )
    assert fleet.condition(node.name, "Ready", "vmnode")["status"] == "True"
    want(fleet, node.name)
    eventually(lambda: not fleet.condition(node.name, "PoolsReady", "vmnode"), "the condition goes")
