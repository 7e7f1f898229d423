"""Pools of a VMNode as an administrator has them: added to a running node, used, kept while not empty, gone."""

import json

from fleet import Fleet, eventually

POOLS = "/var/lib/virtfleet/pools"


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

    want(fleet, node.name)
    wait_said(fleet, node.name, "goes once it is empty; it holds disks of 1 machine")
    assert fleet.status("on-fast")["printableStatus"] == "Running"
    fleet.delete("on-fast")
    eventually(lambda: "fast" not in pools(fleet, node.name), "the pool goes")
    assert not folder.exists()


def test_a_pool_outside_of_the_roots_is_refused_by_the_node(fleet: Fleet) -> None:
    node = fleet.cluster.nodes[0]
    want(fleet, node.name, {"name": "bad", "path": "/etc/bad"})
    wait_said(
        fleet, node.name, f"pool bad: Its path is not below the poolRoots of the node's configuration file ({POOLS})"
    )
    assert fleet.condition(node.name, "Ready", "vmnode")["status"] == "True"
    want(fleet, node.name)
    eventually(lambda: not fleet.condition(node.name, "PoolsReady", "vmnode"), "the condition goes")
