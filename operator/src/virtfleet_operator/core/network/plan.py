"""What to write so that rows become as they shall be: the least that does it, and nothing when they are."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from virtfleet_operator.core.network.rows import (
    ROOTS,
    WEAK_LISTS,
    AddReference,
    ChangePlan,
    Columns,
    Delete,
    FoundRow,
    Insert,
    Operation,
    RemoveReference,
    Row,
    RowKey,
    Update,
    Value,
)


def plan_changes(
    wanted: Mapping[str, Sequence[Row]],
    found: Iterable[FoundRow],
    known: Collection[RowKey],
) -> ChangePlan:
    """Return what to write for some owners.

    `wanted` are their rows by owner, none for an owner that is gone; `found` are all rows in the database that belong
    to these owners or have a key of theirs; `known` are the keys of all rows of ours in the database.
    """
    owners = {row.key: owner for owner, rows in wanted.items() for row in rows}
    rows = {row.key: row for listed in wanted.values() for row in listed}
    kept, surplus = _sort_out(found)
    waiting = _withhold(rows, owners, kept, known)
    surplus += [row for key, row in kept.items() if key not in rows]
    gone = {row.key for row in surplus} - rows.keys()
    there = _Present(rows, known, gone)
    operations: list[Operation] = []
    for key, row in rows.items():
        columns = {**row.columns, "external_ids": row.external_ids(owners[key])}
        operations += _write(row, _without_absent(columns, there), kept.get(key), there)
    operations += [operation for row in surplus for operation in _remove(row, gone)]
    return ChangePlan(tuple(_in_order(operations)), waiting)


class _Present:
    """The rows that are there after the plan."""

    def __init__(self, rows: Collection[RowKey], known: Collection[RowKey], gone: Collection[RowKey]) -> None:
        self._rows, self._known, self._gone = rows, known, gone

    def __contains__(self, key: RowKey) -> bool:
        return key in self._rows or (key in self._known and key not in self._gone)


def _sort_out(found: Iterable[FoundRow]) -> tuple[dict[RowKey, FoundRow], list[FoundRow]]:
    """Return one row for each key, and those that are there twice: two writers were at it."""
    kept: dict[RowKey, FoundRow] = {}
    surplus: list[FoundRow] = []
    for row in sorted(found, key=lambda row: row.uuid):
        if row.key in kept:
            surplus.append(row)
        else:
            kept[row.key] = row
    return kept, surplus


def _withhold(
    rows: dict[RowKey, Row],
    owners: Mapping[RowKey, str],
    kept: Mapping[RowKey, FoundRow],
    known: Collection[RowKey],
) -> dict[str, frozenset[RowKey]]:
    """Take from `rows` what cannot be written yet; return what is waited for.

    A row that names another in its text goes when that one goes; a row that is there stays when a list it is in goes.
    """
    waiting: dict[str, frozenset[RowKey]] = {}
    withheld = True
    while withheld:
        there = _Present(rows, known, {key for key in kept if key not in rows})
        withheld = False
        for key, row in list(rows.items()):
            absent = {need for need in row.needs if need not in there}
            parents = {attachment.parent for attachment in row.attached if attachment.parent not in there}
            if absent or parents:
                waiting[owners[key]] = waiting.get(owners[key], frozenset()) | absent | parents
            if absent or (parents and key not in kept):
                del rows[key]
                withheld = True
    there = _Present(rows, known, {key for key in kept if key not in rows})
    for key, row in rows.items():
        absent = {name for value in row.columns.values() for name in _references(value) if name not in there}
        if absent:
            waiting[owners[key]] = waiting.get(owners[key], frozenset()) | absent
    return waiting


def _write(row: Row, columns: Columns, found: FoundRow | None, there: _Present) -> Iterator[Operation]:
    if found is None:
        yield Insert(row.key, columns)
    elif changed := {name: value for name, value in columns.items() if found.columns.get(name) != value}:
        yield Update(found.uuid, row.key, changed)
    listed = found.attached if found else frozenset()
    for attachment in sorted(row.attached - listed):
        if attachment.parent in there:
            yield AddReference(attachment.parent, attachment.column, row.key)
    if found is not None:
        for attachment in sorted(listed - row.attached):
            if attachment.parent in there:
                yield RemoveReference(attachment.parent, attachment.column, row.key, found.uuid)


def _without_absent(columns: Columns, there: _Present) -> dict[str, Value]:
    """Leave out references to rows that are not there (yet)."""
    return {name: _present(value, there) for name, value in columns.items()}


def _present(value: Value, there: _Present) -> Value:
    references = _references(value)
    return frozenset(key for key in references if key in there) if references else value


def _references(value: Value) -> frozenset[RowKey]:
    if not isinstance(value, frozenset):
        return frozenset()
    return frozenset(member for member in value if isinstance(member, RowKey))


def _remove(row: FoundRow, gone: Collection[RowKey]) -> Iterator[Operation]:
    """Delete a row, or strike it from the lists that keep it: the database deletes what nothing lists."""
    if row.key.table in ROOTS:
        yield Delete(row.uuid, row.key)
        return
    for parent, column in sorted(row.attached):
        if (parent.table, column) not in WEAK_LISTS and parent not in gone:
            yield RemoveReference(parent, column, row.key, row.uuid)


def _in_order(operations: Iterable[Operation]) -> list[Operation]:
    """New rows before what refers to them, deletions last."""
    order = (Insert, Update, AddReference, RemoveReference, Delete)
    return sorted(operations, key=lambda operation: order.index(type(operation)))
