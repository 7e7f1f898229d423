"""Which changes of objects make the operator look at the machines that wait for room, and which do not."""

from collections.abc import Hashable
from typing import Any

import pytest

from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import INDEXERS, MACHINE, NODE
from virtfleet_operator.reconcile.controller import UNPLACED, Controller

BOUND = {"labels": {"virtfleet.io/node": "a"}}
DISK = {"name": "root", "pool": "default", "capacity": "1Gi", "target": "vda"}
RUNNING = {"uuid": "u", "machineType": "q35", "cpuModel": "EPYC", "vcpus": {"current": 2, "max": 2}}
SIZED = RUNNING | {"memory": {"current": "64Mi"}}
SMALL, LARGE = ({"memory": {"guest": size}} for size in ("32Mi", "64Mi"))


class Observer:
    """The metrics of a queue that does not run."""

    def depth(self, waiting: int) -> None:
        """Take no notice."""

    def done(self, key: Hashable, result: str, waited_seconds: float, worked_seconds: float) -> None:
        """Take no notice."""


def stored(version: int, metadata: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    meta = {"name": "x", "namespace": "shop", "uid": "u", "resourceVersion": str(version)}
    meta |= {"generation": version, **(metadata or {})}
    return {"metadata": meta, "spec": {}, **parts}


CHANGES = [
    ("a node comes", NODE, None, {}, True),
    ("a node goes", NODE, {}, None, True),
    ("maintenance ends", NODE, {"spec": {"maintenance": True}}, {"spec": {}}, True),
    ("a label comes", NODE, {}, {"metadata": {"labels": {"zone": "east"}}}, True),
    ("a node's status is written", NODE, {}, {"status": {"machines": 3}}, False),
    ("a machine is created", MACHINE, None, {"spec": LARGE}, False),
    ("a machine that waits is changed", MACHINE, {"spec": LARGE}, {"spec": SMALL}, False),
    ("a machine that waits goes", MACHINE, {"spec": LARGE}, None, False),
    ("a machine is bound", MACHINE, {"spec": LARGE}, {"spec": LARGE, "metadata": BOUND}, True),
    ("a machine goes", MACHINE, {"spec": LARGE, "metadata": BOUND}, None, True),
    ("a machine shrinks", MACHINE, {"spec": LARGE, "metadata": BOUND}, {"spec": SMALL, "metadata": BOUND}, True),
    (
        "a guest gives memory back",
        MACHINE,
        {"metadata": BOUND, "status": {"machine": SIZED}},
        {"metadata": BOUND, "status": {"machine": {**SIZED, "memory": {"current": "32Mi"}}}},
        True,
    ),
    (
        "a guest is started again",
        MACHINE,
        {"metadata": BOUND, "status": {"machine": SIZED}},
        {"metadata": BOUND, "status": {"machine": {**SIZED, "restarts": 1}}},
        False,
    ),
    (
        "a disk is reported",
        MACHINE,
        {"metadata": BOUND, "status": {}},
        {"metadata": BOUND, "status": {"disks": [DISK]}},
        True,
    ),
    (
        "another label",
        MACHINE,
        {"metadata": BOUND},
        {"metadata": {"labels": BOUND["labels"] | {"app": "web"}}},
        True,
    ),
    ("a class comes", "VMClass", None, {}, True),
    ("a switch comes", "VirtualSwitch", None, {}, False),
]


@pytest.mark.parametrize(
    ("kind", "old", "new", "looks"), [pytest.param(*change[1:], id=change[0]) for change in CHANGES]
)
async def test_a_change_makes_it_look_or_not(
    monkeypatch: pytest.MonkeyPatch, kind: str, old: dict[str, Any] | None, new: dict[str, Any] | None, *, looks: bool
) -> None:
    cache = Cache(INDEXERS)
    controller = Controller(cache, Observer())
    asked: list[Key] = []
    if old is not None:
        cache.put(kind, stored(1, **old))
    monkeypatch.setattr(controller.queue, "add_after", lambda key, _: asked.append(key))
    if new is not None:
        cache.put(kind, stored(2, **new))
    else:
        (there,) = cache.all(kind)
        cache.remove(there.key, "u")
    assert (UNPLACED in asked) == looks
