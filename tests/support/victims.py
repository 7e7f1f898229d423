"""What may be killed at any moment, and what a user does meanwhile."""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable

from fleet import Fleet, eventually
from virtfleet_dev.process import Program


class Victims:
    """What can be killed; the host's or the cluster's supervisor starts it again."""

    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        self._cluster = fleet.cluster
        self._chance = chance
        self.killed: Counter[str] = Counter()
        self.by_name: dict[str, Callable[[], None]] = {
            "operator": lambda: kill(self._cluster.operator),
            "daemon": lambda: kill(self._cluster.daemon(self._chance.choice(self._cluster.nodes))),
            "libvirtd": self._libvirtd,
            "qemu": self._qemu,
            "apiserver": lambda: kill(self._cluster.control_plane.apiserver),
            "etcd": lambda: kill(self._cluster.control_plane.etcd),
        }

    def kill(self, name: str) -> None:
        self.by_name[name]()
        self.killed[name] += 1

    def _libvirtd(self) -> None:
        for pid in self._chance.choice(self._cluster.nodes).pids("libvirtd"):
            os.kill(pid, signal.SIGKILL)

    def _qemu(self) -> None:
        guests = [pid for node in self._cluster.nodes for pid in node.pids("qemu-system-x86")]
        for pid in self._chance.sample(guests, min(1, len(guests))):
            os.kill(pid, signal.SIGKILL)


def kill(program: Program) -> None:
    os.kill(eventually(lambda: program.inner_pid, f"{program.name} runs"), signal.SIGKILL)


def gone(fleet: Fleet) -> Callable[[str], object]:
    def wait(name: str) -> object:
        def absent() -> bool:
            # Of one machine, a server that has just started and knows no custom resources yet says the same as of one
            # that is gone.
            done = fleet.cluster.kubectl.attempt("get", "vm", "-o", "name")
            return done.returncode == 0 and name not in {word.rpartition("/")[2] for word in done.stdout.split()}

        return eventually(absent, f"{name} is gone")

    return wait


def persist(act: Callable[[str], object], name: str) -> None:
    """Act as a user does who tries again while the API server is away."""

    def accepted() -> bool:
        try:
            act(name)
        except Exception:  # noqa: BLE001 -- whatever kubectl says while its server restarts
            return False
        return True

    eventually(accepted, f"kubectl is heard for {name}")
