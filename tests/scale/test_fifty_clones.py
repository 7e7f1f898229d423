"""Fifty linked clones of a large image on one node: they take no space until they write, and give all of it back.

`pytest tests/scale -s` shows the figures, which docs/performance.md quotes.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet import Fleet, eventually
from virtfleet_dev.kubectl import KubectlError
from virtfleet_dev.node import Node

pytestmark = pytest.mark.alone

CLONES = 50
IMAGE_MIB = 500
PATIENCE_SECONDS = 600.0
"""Fifty emulated guests boot on two processors in three minutes; they may be slower ones."""

Show = Callable[[str], None]


@pytest.fixture
def node(fleet: Fleet) -> Iterator[Node]:
    """A node that promises a processor to each clone."""
    found = fleet.cluster.nodes[0]
    promise(fleet, found, "60")
    yield found
    promise(fleet, found, "4")


def promise(fleet: Fleet, node: Node, cpu: str) -> None:
    patch = json.dumps({"spec": {"overcommit": {"cpu": cpu}}})
    fleet.cluster.kubectl.run("patch", "vmn", node.name, "--type=merge", "-p", patch)


def make_image(fleet: Fleet) -> None:
    """Serve the test guest with so much random content behind it that the file has the size."""
    source, target = fleet.cluster.images / "guest.qcow2", fleet.cluster.images / "large.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", source.resolve(), target], check=True)
    with target.open("ab") as file:
        for _ in range(IMAGE_MIB - (target.stat().st_size >> 20)):
            file.write(os.urandom(1 << 20))


def taken(files: list[Path]) -> int:
    """Return the bytes that files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in files)


def used(node: Node) -> int:
    """Return the bytes of everything in a node's pool."""
    return taken([path for path in (node.directory / "virtfleet/pools/default").rglob("*") if path.is_file()])


def new_disks(fleet: Fleet, node: Node) -> list[Path]:
    """Return the disks that are complete."""
    return [path for path in fleet.pool(node) if path.name == "root.qcow2"]


def clones(node: Node, power: str) -> str:
    manifests = [
        {
            "apiVersion": "virtfleet.io/v1alpha1",
            "kind": "VirtualMachine",
            "metadata": {"name": f"clone-{number}", "namespace": "default", "labels": {"of": "large"}},
            "spec": {
                "memory": {"guest": "128Mi"},
                "powerState": power,
                "terminationGracePeriodSeconds": 0,
                "nodeSelector": {"kubernetes.io/hostname": node.name},
                "disks": [{"name": "root", "source": {"image": {"name": "large"}}}],
            },
        }
        for number in range(CLONES)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


def test_fifty_clones_of_a_large_image(fleet: Fleet, node: Node, show: Show) -> None:
    make_image(fleet)
    before = used(node)
    fleet.image("large", "large.raw")
    fleet.wait_ready("large", "vmimage")

    began = time.monotonic()
    fleet.cluster.kubectl.run(
        "apply", "-f", "-", stdin=clones(node, "Paused")
    )  # fifty guests would take the processors
    disks = eventually(lambda: made if len(made := new_disks(fleet, node)) == CLONES else None, "the disks")
    show(f"{CLONES} clones of {IMAGE_MIB} MiB made: {time.monotonic() - began:.1f} s, {taken(disks) >> 10} KiB")
    assert taken(disks) < CLONES << 20, "a clone takes more than a mebibyte before its guest has written"

    began = time.monotonic()
    fleet.cluster.kubectl.run("apply", "-f", "-", stdin=clones(node, "Running"))
    uids = [path.parent.name for path in disks]
    eventually(lambda: all("READY" in fleet.console(node, uid) for uid in uids), "all have booted", PATIENCE_SECONDS)
    show(f"all {CLONES} guests have booted: {time.monotonic() - began:.0f} s")
    image = fleet.get("large", "vmimage")
    assert len(image["status"]["users"]) == CLONES
    with pytest.raises(KubectlError, match=r"used by machines default/clone-.* and 47 more"):
        fleet.cluster.kubectl.run("delete", "vmimg", "large")

    began = time.monotonic()
    fleet.cluster.kubectl.run("delete", "vm", "-l", "of=large", "--wait=false")
    eventually(lambda: not fleet.cluster.kubectl.run("get", "vm", "-l", "of=large", "-o", "name"), "all are gone")
    show(f"all deleted: {time.monotonic() - began:.1f} s\n")
    fleet.delete("large", kind="vmimage")
    (fleet.cluster.images / "large.raw").unlink()
    eventually(lambda: used(node) <= before, "the pool has what it had before")
