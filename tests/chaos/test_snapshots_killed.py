"""Snapshots, restores and deletions in a random order, with kill -9 of anything in the middle, against a model.

The guest keeps a number in its memory (a file of its RAM disk) and on its disk. Whatever is killed: afterwards the
machine is in its old or its new state, every other snapshot brings back its own, and nothing is left at the end.
VIRTFLEET_CHAOS_SEED repeats a run, VIRTFLEET_CHAOS_ROUNDS makes it longer.
"""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fleet import Fleet, eventually
from victims import Victims, persist

ROUNDS = int(os.environ.get("VIRTFLEET_CHAOS_ROUNDS") or 8)
SEED = int(os.environ.get("VIRTFLEET_CHAOS_SEED") or random.SystemRandom().randrange(10**6))

NAME = "kept-in-time"
DISK = {"name": "data", "size": "64Mi", "source": {"blank": {}}}
LOST = ""
"""What the memory says after the guest was started anew."""

State = tuple[str, str]
"""The numbers in memory and on the disk."""


@dataclass
class Model:
    """What the machine and its snapshots hold."""

    now: State = (LOST, LOST)
    kept: dict[str, set[State]] = field(default_factory=dict)
    """One state each, or two where a killed QEMU leaves open whether it was captured before or after."""


def write(fleet: Fleet, number: int) -> State:
    """Have the guest keep a number, in memory and durably on the disk."""
    command = f"echo {number} > /value; printf %512s {number} | dd of=/dev/vda bs=512 count=1 conv=fsync,notrunc"
    status, said = fleet.inside(NAME, command)
    assert status == 0, said
    return str(number), str(number)


def read(fleet: Fleet) -> State:
    """Return the numbers that the guest keeps."""
    status, said = fleet.inside(NAME, "echo $(cat /value 2>/dev/null),$(dd if=/dev/vda bs=512 count=1 | tr -d '\\0')")
    assert status == 0, said
    memory, disk = said.strip().split(",")
    return memory.strip(), disk.strip()


def phase(fleet: Fleet, kind: str, name: str) -> str:
    return str(fleet.status(name, kind).get("phase", ""))


def ended(fleet: Fleet, kind: str, name: str, *words: str) -> Callable[[], bool]:
    return lambda: phase(fleet, kind, name) in words


def capture(fleet: Fleet, name: str) -> None:
    fleet.apply("VMSnapshot", name, {"virtualMachine": NAME})


def restore(fleet: Fleet, snapshot: str, name: str) -> None:
    fleet.apply("VMRestore", name, {"snapshot": snapshot, "target": {"virtualMachine": NAME}})


def is_gone(fleet: Fleet, kind: str, name: str) -> bool:
    done = fleet.cluster.kubectl.attempt("get", kind, "-o", "name")
    return done.returncode == 0 and name not in {word.rpartition("/")[2] for word in done.stdout.split()}


def seen(fleet: Fleet) -> State:
    """Return the state once the machine runs and its guest answers, however often it was killed."""

    def answer() -> State | None:
        try:
            return read(fleet)
        except Exception:  # noqa: BLE001 -- it is on its way back
            return None

    fleet.wait_ready(NAME)
    found: State = eventually(answer, "the guest says what it keeps")
    return found


def test_a_machine_is_in_its_old_or_its_new_state_whatever_dies(
    fleet: Fleet, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(SEED)
    record_property("VIRTFLEET_CHAOS_SEED", SEED)
    victims = Victims(fleet, chance)
    fleet.machine(NAME, runStrategy="Always", disks=[DISK])
    fleet.wait_ready(NAME)
    model = Model(now=write(fleet, 1))
    for number in range(2, ROUNDS + 2):
        operate(fleet, victims, chance, model, number)
    assert sum(victims.killed.values()) >= ROUNDS
    for name, states in model.kept.items():
        restore(fleet, name, f"last-{name}")
        eventually(ended(fleet, "vmrestore", f"last-{name}", "Succeeded"), f"{name} is restored")
        assert seen(fleet) in states, (name, SEED)
    for name in model.kept:
        fleet.delete(name, kind="vmsnapshot")
    fleet.delete(NAME)
    for node in fleet.cluster.nodes:
        eventually(lambda node=node: not fleet.pool(node), f"nothing is left on {node.name}")
        assert not [path for path in fleet.snapshots(node) if path.is_file()]


def operate(fleet: Fleet, victims: Victims, chance: random.Random, model: Model, number: int) -> None:
    """Write, then do one thing with snapshots while something dies, and see what has become of it."""
    model.now = write(fleet, number)
    choices = ["capture"] + ["restore", "delete"] * (len(model.kept) > 1)
    match chance.choice(choices):
        case "capture":
            name, old, new = f"at-{number}", model.now, {model.now}
            persist(lambda name: capture(fleet, name), name)
            victim = strike(victims, chance)
            eventually(ended(fleet, "vmsnapshot", name, "Ready", "Failed"), f"{name} ends")
            if phase(fleet, "vmsnapshot", name) == "Ready":
                # Captured anew after QEMU was killed, it has the memory of a guest that was started anew.
                model.kept[name] = {model.now} | ({(LOST, model.now[1])} if victim == "qemu" else set())
            else:
                fleet.delete(name, kind="vmsnapshot")
        case "restore":
            name = chance.choice(sorted(model.kept))
            old, new = model.now, model.kept[name]
            persist(lambda restored: restore(fleet, name, restored), f"to-{number}")
            victim = strike(victims, chance)
            eventually(ended(fleet, "vmrestore", f"to-{number}", "Succeeded", "Failed"), f"to-{number} ends")
        case _:
            name = chance.choice(sorted(model.kept))
            old, new = model.now, {model.now}
            persist(lambda name: fleet.cluster.kubectl.run("delete", "vmsnapshot", name, "--wait=false"), name)
            victim = strike(victims, chance)
            eventually(lambda: is_gone(fleet, "vmsnapshot", name), f"{name} is gone")
            del model.kept[name]
    found = seen(fleet)
    possible = {old, *new}
    if victim == "qemu":
        possible |= {(LOST, disk) for _, disk in possible}
    assert found in possible, (found, old, new, victim, SEED)
    model.now = found


def strike(victims: Victims, chance: random.Random) -> str:
    """Kill something within the next moments, and return what it was."""
    name = chance.choice(["operator", "daemon", "libvirtd", "qemu"])
    time.sleep(chance.uniform(0, 2.5))  # the random moment is the test
    victims.kill(name)
    return name
