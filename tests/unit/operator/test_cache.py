"""The cache: newest version wins, indexes follow, what is deleted stays deleted."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfleet_operator.kube.cache import Cache, Stored
from virtfleet_operator.kube.paths import Key

KIND = "VMClass"


def label(stored: Stored) -> Iterable[str]:
    return (stored.meta.labels.get("shelf", ""),)


def body(name: str, version: int, uid: str = "u1", shelf: str = "a") -> dict[str, Any]:
    metadata = {"name": name, "uid": uid, "resourceVersion": str(version), "labels": {"shelf": shelf}}
    return {"metadata": metadata, "spec": {}}


@pytest.fixture
def cache() -> Cache:
    return Cache({KIND: {"shelf": label}})


def test_an_older_version_never_replaces_a_newer_one(cache: Cache) -> None:
    assert cache.put(KIND, body("x", 5))
    assert not cache.put(KIND, body("x", 5))
    assert not cache.put(KIND, body("x", 4))
    assert cache.put(KIND, body("x", 10))
    stored = cache.get(Key(KIND, "", "x"))
    assert stored
    assert stored.version == 10


def test_an_answer_that_comes_after_the_deletion_does_not_bring_the_object_back(cache: Cache) -> None:
    cache.put(KIND, body("x", 5))
    assert cache.remove(Key(KIND, "", "x"), "u1")
    assert not cache.put(KIND, body("x", 6))
    assert cache.get(Key(KIND, "", "x")) is None


def test_the_deletion_of_a_former_object_does_not_remove_its_successor(cache: Cache) -> None:
    cache.put(KIND, body("x", 5, "u1"))
    cache.put(KIND, body("x", 9, "u2"))
    assert not cache.remove(Key(KIND, "", "x"), "u1")
    assert cache.get(Key(KIND, "", "x"))


def test_a_successor_is_no_change_of_what_was_there_before(cache: Cache) -> None:
    """What was made for the former object is taken away when it goes, and by nothing else."""
    told: list[tuple[str | None, str | None]] = []
    cache.listen(lambda _key, old, new: told.append((old.uid if old else None, new.uid if new else None)))
    cache.put(KIND, body("x", 5, "u1"))
    cache.put(KIND, body("x", 9, "u2"))
    assert told == [(None, "u1"), ("u1", None), (None, "u2")]
    assert not cache.put(KIND, body("x", 10, "u1")), "the former one does not come back"


def of_generation(version: int, generation: int, spec: dict[str, Any]) -> dict[str, Any]:
    made = body("x", version)
    made["metadata"]["generation"] = generation
    return {**made, "spec": spec}


WHOLE, PRUNED = {"size": "1Gi", "telepathy": True}, {"size": "1Gi"}


def spec_of(cache: Cache) -> Any:
    stored = cache.get(Key(KIND, "", "x"))
    assert stored
    return stored.body["spec"]


def test_what_a_watch_of_an_older_schema_leaves_out_is_known_from_an_answer(cache: Cache) -> None:
    cache.put(KIND, of_generation(5, 1, PRUNED))
    assert cache.put(KIND, of_generation(5, 1, WHOLE))
    assert spec_of(cache) == WHOLE
    assert not cache.put(KIND, of_generation(5, 1, PRUNED))
    assert cache.put(KIND, of_generation(6, 1, PRUNED))
    assert spec_of(cache) == WHOLE


def test_a_field_that_a_user_removes_is_gone(cache: Cache) -> None:
    cache.put(KIND, of_generation(5, 1, WHOLE))
    assert cache.put(KIND, of_generation(6, 2, PRUNED))
    assert spec_of(cache) == PRUNED


def test_managed_fields_are_not_kept(cache: Cache) -> None:
    big = body("x", 5)
    big["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    cache.put(KIND, big)
    stored = cache.get(Key(KIND, "", "x"))
    assert stored
    assert "managedFields" not in stored.body["metadata"]


def test_listeners_are_told_of_news_only(cache: Cache) -> None:
    told: list[tuple[str, int | None, int | None]] = []
    cache.listen(lambda key, old, new: told.append((key.name, old and old.version, new and new.version)))
    cache.put(KIND, body("x", 5))
    cache.put(KIND, body("x", 5))
    cache.put(KIND, body("x", 6))
    cache.remove(Key(KIND, "", "x"), "u1")
    cache.remove(Key(KIND, "", "x"), "u1")
    assert told == [("x", None, 5), ("x", 5, 6), ("x", 6, None)]


STEPS = st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("abc"), st.booleans()), max_size=40)


@given(STEPS)
def test_indexes_say_what_the_objects_say(steps: list[tuple[str, str, bool]]) -> None:
    cache = Cache({KIND: {"shelf": label}})
    lives: dict[str, int] = {}
    for version, (name, shelf, delete) in enumerate(steps, start=1):
        uid = f"{name}-{lives.setdefault(name, 0)}"
        if delete:
            cache.remove(Key(KIND, "", name), uid)
            lives[name] += 1
        else:
            cache.put(KIND, body(name, version, uid, shelf))
    objects = list(cache.all(KIND))
    for shelf in "abc":
        found = {stored.key for stored in cache.find(KIND, "shelf", shelf)}
        assert found == {stored.key for stored in objects if label(stored) == (shelf,)}
    assert all(cache.find(KIND, "uid", stored.uid) == [stored] for stored in objects)
    assert len(cache._indexes) == len({(i, v) for s in objects for i, v in (("shelf", *label(s)), ("uid", s.uid))})
