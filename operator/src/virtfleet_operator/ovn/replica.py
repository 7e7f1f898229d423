"""What of the replica is ours: rows by owner and by key, and in which lists they are.

Touched by the connection's thread alone. Only what has changed is read again, so that a change of one card costs no
more among five thousand than among five.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from virtfleet_operator.core.network.rows import (
    COLUMNS,
    KEY_ID,
    LISTS,
    OWNER_ID,
    Attachment,
    FoundRow,
    RowKey,
    Value,
)

Name = TypeVar("Name")
Member = TypeVar("Member")
Place = tuple[UUID, str]
"""A list: a row's UUID and the column."""


@dataclass(slots=True)
class _Kept:
    """A row of ours as last read."""

    key: RowKey
    owner: str
    columns: dict[str, Any]
    lists: dict[str, frozenset[UUID]]


@dataclass
class Touched:
    """What has changed, by whomever."""

    owners: set[str] = field(default_factory=set)
    """Whose rows, or the lists they are in, have changed."""
    keys: set[RowKey] = field(default_factory=set)
    """Rows that have come or gone."""
    up: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Whose a port is, by its name, and whether it is connected."""


class OwnRows:
    """An index over the replica's tables."""

    def __init__(self) -> None:
        self._kept: dict[UUID, _Kept] = {}
        self._by_key: dict[RowKey, set[UUID]] = {}
        self._by_owner: dict[str, set[UUID]] = {}
        self._places: dict[UUID, set[Place]] = {}

    def read(self, event: str, row: Any, touched: Touched) -> None:
        """Read a row that was created, changed or deleted, and add to `touched` what that means.

        After a reconnect the replica forgets everything without a word and tells of every row as new; the one row of
        NB_Global then shows that all are there.
        """
        if event == "create" and row._table.name == "NB_Global":  # noqa: SLF001 -- the library has no other way
            tables = row._idl.tables  # noqa: SLF001 -- the same
            for uuid in [uuid for uuid, kept in self._kept.items() if uuid not in tables[kept.key.table].rows]:
                self._replace(uuid, None, touched)
        else:
            self._replace(row.uuid, None if event == "delete" else row, touched)

    @property
    def owners(self) -> Collection[str]:
        """Return the owners that have rows."""
        return self._by_owner.keys()

    @property
    def keys(self) -> Collection[RowKey]:
        """Return the keys of all rows of ours."""
        return self._by_key.keys()

    def uuid(self, key: RowKey) -> UUID:
        """Return a row by its key; KeyError if it is not there."""
        return min(self._by_key[key], key=str)

    def find(self, owners: Collection[str], keys: Collection[RowKey]) -> Iterator[FoundRow]:
        """Yield the rows that belong to one of the owners or have one of the keys."""
        listed = [self._by_owner.get(owner, set()) for owner in owners]
        for uuid in set().union(*listed, *(self._by_key.get(key, set()) for key in keys)):
            yield self._found(uuid)

    def _replace(self, uuid: UUID, row: Any, touched: Touched) -> None:
        before = self._kept.pop(uuid, None)
        after = _decode(row) if row is not None else None
        if before != after:
            touched.owners.update(kept.owner for kept in (before, after) if kept is not None)
        if before is not None:
            self._strike(uuid, before)
            if before.key.table == "Logical_Switch_Port":
                touched.up[before.key.name] = (before.owner, False)
        if after is not None:
            self._kept[uuid] = after
            self._by_key.setdefault(after.key, set()).add(uuid)
            self._by_owner.setdefault(after.owner, set()).add(uuid)
            if after.key.table == "Logical_Switch_Port":
                touched.up[after.key.name] = (after.owner, row.up == [True])
        # What has come stays told until it is taken, whatever happens to it meanwhile.
        keys = [kept.key if kept is not None else None for kept in (before, after)]
        if keys[0] != keys[1]:
            touched.keys.update(key for key in keys if key is not None)
        self._relist(uuid, before.lists if before else {}, after.lists if after else {}, touched)

    def _strike(self, uuid: UUID, kept: _Kept) -> None:
        _discard(self._by_key, kept.key, uuid)
        _discard(self._by_owner, kept.owner, uuid)

    def _relist(
        self,
        uuid: UUID,
        before: dict[str, frozenset[UUID]],
        after: dict[str, frozenset[UUID]],
        touched: Touched,
    ) -> None:
        for column in before.keys() | after.keys():
            old, new = before.get(column, frozenset()), after.get(column, frozenset())
            for child in old ^ new:
                if child in old:
                    _discard(self._places, child, (uuid, column))
                else:
                    self._places.setdefault(child, set()).add((uuid, column))
                if child in self._kept:
                    touched.owners.add(self._kept[child].owner)

    def _found(self, uuid: UUID) -> FoundRow:
        kept = self._kept[uuid]
        columns = {name: self._named(value) for name, value in kept.columns.items()}
        places = ((self._kept.get(parent), column) for parent, column in self._places.get(uuid, ()))
        attached = frozenset(Attachment(parent.key, column) for parent, column in places if parent is not None)
        return FoundRow(str(uuid), kept.key, columns, attached)

    def _named(self, value: Any) -> Value:
        """Put keys in the place of UUIDs; a row of somebody else has none."""
        if isinstance(value, frozenset) and any(isinstance(member, UUID) for member in value):
            foreign = RowKey("", "")
            return frozenset(self._kept[uuid].key if uuid in self._kept else foreign for uuid in value)
        return value  # type: ignore[no-any-return]


def _discard(index: dict[Name, set[Member]], name: Name, member: Member) -> None:
    members = index.get(name, set())
    members.discard(member)
    if not members:
        index.pop(name, None)


def _decode(row: Any) -> _Kept | None:
    """Read a row; None if it is not ours."""
    table = row._table.name  # noqa: SLF001 -- the library has no other way
    if table not in COLUMNS:
        return None
    ids = row.external_ids
    if KEY_ID not in ids or OWNER_ID not in ids:
        return None
    columns = {name: _canonical(getattr(row, name)) for name in (*COLUMNS[table], "external_ids")}
    lists = {name: frozenset(child.uuid for child in getattr(row, name)) for name in LISTS.get(table, ())}
    return _Kept(RowKey(table, ids[KEY_ID]), ids[OWNER_ID], columns, lists)


def _canonical(value: Any) -> Any:
    """Return sets as frozen sets, with UUIDs for rows."""
    if isinstance(value, list):
        return frozenset(getattr(member, "uuid", member) for member in value)
    return value
