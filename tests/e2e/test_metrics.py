"""What a whole cluster tells Prometheus is what the reference says, and nothing that Prometheus' linter objects to."""

import re
import subprocess

import pytest

from fleet import Fleet, eventually
from prometheus_queries import promtool, reference

_RARE = {
    "virtfleet_node_numa_free_hugepages",
    "virtfleet_node_uplink_up",
    "virtfleet_node_refusals_total",
    "virtfleet_restores",
    "virtfleet_snapshots",
}
"""What this fleet has none of."""


def scrape(fleet: Fleet, program: str) -> str:
    """Return what the operator, or the first node's daemon, tells."""
    if program == "operator":
        port = fleet.cluster.control_plane.ports["metrics"]
        command = ["curl", "-sf", f"http://127.0.0.1:{port}/metrics"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    node = fleet.cluster.nodes[0]
    return node.run("curl", "-sf", f"http://{node.address}:9100/metrics")


def names(text: str) -> set[str]:
    """Return the names of the series that are told, without those of the interpreter and of when series began."""
    found = set(re.findall(r"^(\w+)[ {]", text, re.MULTILINE))
    return {name for name in found if not name.startswith("python_") and not name.endswith("_created")}


def expected(program: str) -> set[str]:
    """Return the series of the reference that a program with a machine tells."""
    own = {name for name in reference() if name.startswith("virtfleet_node_") == (program == "daemon")}
    return {name for name in own if name.startswith("virtfleet_")} - _RARE


@pytest.mark.parametrize("program", ["operator", "daemon"])
def test_all_that_the_reference_has_is_told_and_nothing_else(fleet: Fleet, program: str) -> None:
    fleet.image("measured")
    spec = {"kernelBoot": None, "disks": [{"name": "root", "source": {"image": {"name": "measured"}}}]}
    near = {"nodeSelector": {"kubernetes.io/hostname": fleet.cluster.nodes[0].name}}
    fleet.apply("VirtualSwitch", "measured", {"type": "Overlay", "subnet": {"cidr": "10.77.0.0/24"}})
    fleet.machine("measured", **spec, **near, networks=[{"name": "eth0", "switch": "measured"}])
    fleet.wait_ready("measured")
    eventually(lambda: expected(program) <= names(scrape(fleet, program)), "everything is told")
    told = scrape(fleet, program)
    assert names(told) <= set(reference())
    lint = promtool("check", "metrics", text=told)
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
    fleet.delete("measured")
    fleet.delete("measured", kind="virtualswitch")
    fleet.delete("measured", kind="vmimage")
