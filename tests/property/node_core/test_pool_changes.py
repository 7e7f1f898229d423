"""Whatever an operator asks for: what holds something stays where it is, and nothing comes outside of the roots."""

from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.pool import Pool
from virtfleet_node.core.pool_changes import Present, decide

ROOTS = (PurePosixPath("/srv/pools"), PurePosixPath("/mnt"))
CONFIGURED = {"default": PurePosixPath("/srv/pools/default")}
paths = st.sampled_from(
    ("/srv/pools/a", "/srv/pools/b", "/srv/pools/a/in", "/mnt/c", "/etc/d", "/mnt", "/srv/pools/default/disks")
)
names = st.sampled_from(("default", "fast", "slow"))
wishes = st.lists(st.builds(Pool, name=names, path=paths), max_size=3, unique_by=lambda pool: pool.name)
contents = st.dictionaries(names, st.sampled_from(("", "2 images")))


def present(wanted: list[Pool], there: dict[str, str]) -> Present:
    """Return what is there after a first wish."""
    held = decide(wanted, Present(CONFIGURED, {}, {}, ROOTS)).kept
    return Present(CONFIGURED, held, there, ROOTS)


@given(wishes, wishes, contents)
def test_a_pool_that_holds_something_is_kept_where_it_is(
    first: list[Pool], second: list[Pool], there: dict[str, str]
) -> None:
    before = present(first, there)
    after = decide(second, before)
    for name, pool in before.held.items():
        if there.get(name):
            assert after.kept[name].path == pool.path
            assert (name in after.leaving) == (name not in {p.name for p in second})


@given(wishes, wishes, contents)
def test_pools_are_apart_and_below_the_roots(first: list[Pool], second: list[Pool], there: dict[str, str]) -> None:
    after = decide(second, present(first, there))
    assert "default" not in after.kept
    taken = [*CONFIGURED.values(), *(PurePosixPath(pool.path) for pool in after.kept.values())]
    assert len(set(taken)) == len(taken)
    assert not any(one in other.parents for one in taken for other in taken)
    assert all(any(root in path.parents for root in ROOTS) for path in taken)


@given(wishes, wishes, contents)
def test_every_wish_that_is_not_met_is_explained(first: list[Pool], second: list[Pool], there: dict[str, str]) -> None:
    after = decide(second, present(first, there))
    for pool in second:
        assert (after.kept.get(pool.name) == pool) != (pool.name in after.notes)
    assert after.leaving <= after.notes.keys()


@given(wishes, wishes, contents)
def test_asking_twice_changes_nothing(first: list[Pool], second: list[Pool], there: dict[str, str]) -> None:
    once = decide(second, present(first, there))
    again = decide(second, Present(CONFIGURED, once.kept, there, ROOTS))
    if all(there.get(name, "") or name not in once.kept for name in once.kept):
        assert again == once
