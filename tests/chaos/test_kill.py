"""kill -9 at random moments of create, stop and delete: everything converges, nothing runs twice, nothing is lost.

Each round takes machines through their life; in every phase two of the six victims are killed, in a random order.
VIRTFLEET_CHAOS_SEED repeats a run.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import libvirt
import pytest

from fleet import Fleet, eventually
from victims import Victims, gone, persist
from virtfleet_dev.node import Node

ROUNDS = 10
SEED = int(os.environ.get("VIRTFLEET_CHAOS_SEED") or random.SystemRandom().randrange(10**6))


class TwiceWatch(threading.Thread):
    """Looks all the time whether a domain runs on two nodes."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(daemon=True)
        self._fleet = fleet
        self.stop = threading.Event()
        self.twice: set[str] = set()
        self.looks = 0

    def run(self) -> None:
        while not self.stop.wait(0.2):
            try:
                running = Counter(self._fleet.running())
            except libvirt.libvirtError:
                continue  # a libvirtd is on its way back
            self.twice |= {uid for uid, count in running.items() if count > 1}
            self.looks += 1


@pytest.fixture
def watch(fleet: Fleet) -> Iterator[TwiceWatch]:
    thread = TwiceWatch(fleet)
    thread.start()
    yield thread
    thread.stop.set()
    thread.join()


def test_everything_may_die_at_any_moment(
    fleet: Fleet, watch: TwiceWatch, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(SEED)
    record_property("VIRTFLEET_CHAOS_SEED", SEED)
    victims = Victims(fleet, chance)
    order = list(victims.by_name)
    kept: list[int] = []
    for number in range(ROUNDS):
        chance.shuffle(order)
        names = [f"chaos-{number}-{which}" for which in "ab"]
        phases: list[tuple[Callable[[str], object], Callable[[str], object]]] = [
            (lambda name: fleet.machine(name, **MACHINE), fleet.wait_ready),
            (
                lambda name: fleet.patch(name, {"runStrategy": "Halted"}),
                lambda name: fleet.wait_status(name, "Stopped"),
            ),
            (lambda name: fleet.cluster.kubectl.run("delete", "vm", name, "--wait=false"), gone(fleet)),
        ]
        for phase, (act, converged) in enumerate(phases):
            for name in names:
                persist(act, name)
            for victim in order[2 * phase : 2 * phase + 2]:
                time.sleep(chance.uniform(0, 1.5))  # the random moment is the test
                victims.kill(victim)
            for name in names:
                converged(name)
            disks = [inode_of_disk(fleet, name) for name in names] if phase < 2 else []
            assert phase != 1 or disks == kept, "a disk was made anew"
            kept = disks

    assert all(victims.killed[name] >= ROUNDS for name in victims.by_name), victims.killed
    assert watch.twice == set()
    assert watch.looks > ROUNDS
    for node in fleet.cluster.nodes:
        until_no_domain(fleet, node)
        assert fleet.pool(node) == []
        assert not fleet.status(node.name, "vmnode").get("orphans")


def until_no_domain(fleet: Fleet, node: Node) -> None:
    """Wait until a node has no domain, or say what was done with the one that is left."""
    try:
        eventually(lambda: has_no_domain(fleet, node), f"no domain is left on {node.name}")
    except AssertionError as error:
        left = fleet.domains(node)
        log = fleet.cluster.daemon(node).log.read_text(errors="replace").splitlines()
        told = [line for line in log if any(uid in line for uid in left)]
        raise AssertionError("\n".join((str(error), str(left), *told[-60:], "the end:", *log[-20:]))) from None


def has_no_domain(fleet: Fleet, node: Node) -> bool:
    """Tell whether a node has no domain; a libvirtd that was the last to be killed tells nothing yet."""
    try:
        return not fleet.domains(node)
    except libvirt.libvirtError:
        return False


BLANK = {"name": "data", "size": "64Mi", "source": {"blank": {}}}
MACHINE = {"runStrategy": "Always", "disks": [BLANK], "terminationGracePeriodSeconds": 20}


def inode_of_disk(fleet: Fleet, name: str) -> int:
    """Return what stays the same of a machine's only disk as long as nobody makes it anew."""
    found = eventually(lambda: fleet.get(name), f"{name} is read")
    node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])
    (disk,) = [path for path in fleet.pool(node) if found["metadata"]["uid"] in str(path)]
    return disk.stat().st_ino
