"""Which nodes hold a copy of an image, and which copies go."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from virtfleet_api.image import ImageReport
from virtfleet_api.vm_image import ImagePhase, VMImage
from virtfleet_operator.core.copies import CopyPlan, choose_taker, plan_copies
from virtfleet_operator.core.place import Candidate, PoolRoom

MakeImage = Callable[..., VMImage]
UID = "11111111-2222-3333-4444-555555555555"
DAY = timedelta(days=1)
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
NODES = [Candidate(name, pools={"default": PoolRoom()}) for name in ("a", "b", "c")]


def reports(**phases: ImagePhase) -> dict[str, ImageReport]:
    return {name: ImageReport(uid=UID, namespace="n", name="i", phase=phase) for name, phase in phases.items()}


def planned(image: VMImage, users: set[str], copies: dict[str, ImageReport], nodes: Any = NODES) -> CopyPlan:
    return plan_copies(image, users, copies, nodes, DAY, NOW)


def idle_since(image: MakeImage, **ages: timedelta) -> VMImage:
    nodes = [{"name": name, "phase": "Ready", "unusedSince": (NOW - age).isoformat()} for name, age in ages.items()]
    return image(status={"nodes": nodes})


def test_an_image_is_held_where_it_is_used_and_where_it_is_already(image: MakeImage) -> None:
    assert planned(image(), {"b"}, reports(c=ImagePhase.IMPORTING)).hold == ("b", "c")
    ready = reports(c=ImagePhase.READY)
    assert planned(image(), {"gone"}, ready) == CopyPlan(("c", "gone"))


def test_an_image_without_users_is_tried_on_one_node_that_can(image: MakeImage) -> None:
    nodes = [
        Candidate("a", unready="not ready", pools={"default": PoolRoom()}),
        Candidate("b", pools={"fast": PoolRoom()}),
        *(Candidate(f"n{n}", pools={"default": PoolRoom()}) for n in range(10)),
    ]
    (home,) = planned(image(), set(), {}, nodes).hold
    assert planned(image(), set(), {}, list(reversed(nodes))).hold == (home,)
    uids = (f"{n:08x}-0000-0000-0000-000000000000" for n in range(100))
    homes = {planned(image(metadata={"uid": uid}), set(), {}, nodes).hold for uid in uids}
    assert len(homes) > 5
    assert all(len(found) == 1 and found[0].startswith("n") for found in homes)
    assert planned(image(), set(), {}, nodes[:2]).hold == ()


def test_another_node_takes_over_from_one_that_is_lost_before_it_had_the_image(image: MakeImage) -> None:
    lost = [Candidate("a", unready="not ready", pools={"default": PoolRoom()}), *NODES[1:]]
    plan = planned(image(), set(), reports(a=ImagePhase.IMPORTING), lost)
    assert "a" in plan.hold
    assert len(plan.hold) == 2
    assert planned(image(), set(), reports(a=ImagePhase.READY), lost).hold == ("a",)


def test_a_copy_goes_when_it_was_of_no_use_for_long_enough(image: MakeImage) -> None:
    ready = reports(a=ImagePhase.READY, b=ImagePhase.READY)
    assert planned(image(), {"a"}, ready) == CopyPlan(("a", "b"), (), NOW + DAY)
    young = idle_since(image, b=DAY - timedelta(seconds=1))
    assert planned(young, {"a"}, ready) == CopyPlan(("a", "b"), (), NOW + timedelta(seconds=1))
    assert planned(idle_since(image, b=DAY), {"a"}, ready) == CopyPlan(("a",), ("b",))
    assert planned(idle_since(image, b=DAY), {"a", "b"}, ready) == CopyPlan(("a", "b"))


def test_the_last_good_copy_that_can_be_reached_stays(image: MakeImage) -> None:
    old = idle_since(image, a=DAY, b=DAY, c=DAY)
    all_ready = reports(a=ImagePhase.READY, b=ImagePhase.READY, c=ImagePhase.READY)
    plan = planned(old, set(), all_ready)
    assert (len(plan.hold), len(plan.drop)) == (1, 2)
    alone = reports(a=ImagePhase.READY, b=ImagePhase.FAILED)
    assert planned(old, set(), alone) == CopyPlan(("a",), ("b",))
    assert planned(old, set(), reports(a=ImagePhase.FAILED, b=ImagePhase.IMPORTING)).drop == ()
    lost = [Candidate("a", unready="not ready", pools={"default": PoolRoom()}), *NODES[1:]]
    assert planned(old, set(), reports(a=ImagePhase.READY, b=ImagePhase.READY), lost).drop == ()
    assert planned(old, {"a"}, reports(a=ImagePhase.READY, b=ImagePhase.READY), lost).drop == ()


def test_an_upload_stays_with_the_node_that_has_most_of_it() -> None:
    def has(size: int) -> ImageReport:
        return reports(a=ImagePhase.IMPORTING)["a"].model_copy(update={"file_size_bytes": size})

    assert choose_taker(UID, {}) is None
    waiting = reports(a=ImagePhase.PENDING, b=ImagePhase.PENDING, c=ImagePhase.PENDING)
    first = choose_taker(UID, waiting)
    assert first == choose_taker(UID, dict(reversed(waiting.items())))
    assert {choose_taker(UID, waiting | {name: has(1)}) for name in waiting} == set(waiting)
    assert choose_taker(UID, {"a": has(5), "b": has(7), "c": has(6)}) == "b"


def test_what_nodes_share_is_one_copy_and_stays(image: MakeImage) -> None:
    ready = reports(a=ImagePhase.READY, b=ImagePhase.READY)
    nodes = [Candidate(name, pools={"default": PoolRoom(shared=True)}) for name in ("a", "b")]
    assert planned(idle_since(image, b=DAY), {"a"}, ready, nodes) == CopyPlan(("a", "b"))


def test_a_pool_nearly_full_is_not_chosen_and_is_relieved(image: MakeImage) -> None:
    full = [Candidate("a", pools={"default": PoolRoom(nearly_full=True)}), *NODES[1:]]
    assert planned(image(), set(), {}, full[:1]).hold == ()
    ready = reports(a=ImagePhase.READY, b=ImagePhase.READY)
    assert planned(idle_since(image, a=DAY), {"b"}, ready, full) == CopyPlan(("b",), ("a",))
