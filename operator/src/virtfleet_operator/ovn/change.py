"""A plan carried out: operations on rows become those of an OVSDB transaction.

Made and carried out by the connection's thread, so from a replica that nobody changes meanwhile, and made again
whenever the database says that it has changed since. A write that was lost or arrived twice is no matter: the next
plan sees what there is.
"""

from collections.abc import Mapping, Sequence
from functools import singledispatchmethod
from typing import Any
from uuid import UUID

from ovs.db.data import Datum
from ovs.db.error import Error as OvsdbError

from virtfleet_operator.core.network.plan import plan_changes
from virtfleet_operator.core.network.rows import (
    AddReference,
    ChangePlan,
    Columns,
    Delete,
    Insert,
    Operation,
    RemoveReference,
    Row,
    RowKey,
    Update,
    Value,
)
from virtfleet_operator.ovn.errors import RefusedError
from virtfleet_operator.ovn.replica import OwnRows

Batch = Mapping[str, Sequence[Row]]


class Change:
    """A command of ovsdbapp's: make the rows of some owners as they shall be."""

    result = None

    def __init__(self, own: OwnRows, tables: Any, batch: Batch) -> None:
        """`tables` are the replica's; `batch` has the rows by owner."""
        self.plan = ChangePlan((), {})
        self._own = own
        self._tables = tables
        self._batch = batch
        self._new: dict[RowKey, UUID] = {}

    def run_idl(self, transaction: Any) -> None:
        """Plan, and do it in the transaction. Called again when the transaction must be made anew.

        Raises:
            RefusedError: the schema does not allow a value.
        """
        keys = [row.key for rows in self._batch.values() for row in rows]
        self.plan = plan_changes(self._batch, self._own.find(self._batch, keys), self._own.keys)
        # All new rows first, since they may refer to each other.
        inserts = [operation for operation in self.plan.operations if isinstance(operation, Insert)]
        rows = {operation.key: transaction.insert(self._tables[operation.key.table]) for operation in inserts}
        self._new = {key: row.uuid for key, row in rows.items()}
        for operation in self.plan.operations:
            self._do(operation)

    def post_commit(self, transaction: Any) -> None:
        """Do nothing: the replica tells what has become of it."""

    @singledispatchmethod
    def _do(self, operation: Operation) -> None:
        raise TypeError(f"no way to carry out {type(operation).__name__}")

    @_do.register
    def _insert(self, operation: Insert) -> None:
        self._assign(self._named(operation.key), operation.columns)

    @_do.register
    def _update(self, operation: Update) -> None:
        self._assign(self._row(operation.key.table, UUID(operation.uuid)), operation.columns)

    @_do.register
    def _add(self, operation: AddReference) -> None:
        self._named(operation.parent).addvalue(operation.column, self._uuid(operation.child))

    @_do.register
    def _strike(self, operation: RemoveReference) -> None:
        self._named(operation.parent).delvalue(operation.column, UUID(operation.uuid))

    @_do.register
    def _delete(self, operation: Delete) -> None:
        self._row(operation.key.table, UUID(operation.uuid)).delete()

    def _assign(self, row: Any, columns: Columns) -> None:
        for name, value in columns.items():
            given = self._value(value)
            try:
                # The library itself logs a bad value and goes on without it.
                Datum.from_python(row._table.columns[name].type, given, lambda uuid: uuid)  # noqa: SLF001 -- the only way
            except (OvsdbError, KeyError, ValueError) as error:
                raise RefusedError(f"{row._table.name} {name}: {error}") from error  # noqa: SLF001 -- the same
            setattr(row, name, given)

    def _value(self, value: Value) -> Any:
        """Return a value as the library wants it: lists for sets, UUIDs for keys."""
        if isinstance(value, frozenset):
            return [self._uuid(member) if isinstance(member, RowKey) else member for member in value]
        return dict(value) if isinstance(value, Mapping) else value

    def _named(self, key: RowKey) -> Any:
        return self._row(key.table, self._uuid(key))

    def _row(self, table: str, uuid: UUID) -> Any:
        return self._tables[table].rows[uuid]

    def _uuid(self, key: RowKey) -> UUID:
        return self._new[key] if key in self._new else self._own.uuid(key)
