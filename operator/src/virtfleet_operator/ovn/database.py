"""The northbound database as it is used: opened, written to, closed; all of it blocks, and belongs into a thread."""

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from ovsdbapp.backend.ovs_idl.transaction import Transaction
from ovsdbapp.exceptions import OvsdbAppException

from virtfleet_operator.core.network.rows import RowKey
from virtfleet_operator.ovn.change import Batch, Change
from virtfleet_operator.ovn.connection import connect
from virtfleet_operator.ovn.errors import OvnError, RefusedError, UnavailableError
from virtfleet_operator.ovn.replica import OwnRows, Touched

TIMEOUT_SECONDS: Final = 10.0
"""How long a write may take; a cluster whose leader has just gone has another in three seconds."""


@dataclass(frozen=True)
class Written:
    """A batch that is in the database."""

    operations: int
    """How many; none when there was nothing to do."""
    waiting: Mapping[str, frozenset[RowKey]]
    """Rows that are not there yet, by the owner whose rows could not be written for want of them."""


class Database:
    """The northbound database, for one writer."""

    def __init__(self, remotes: str, on_touched: Callable[[], None]) -> None:
        """`on_touched` is called by another thread when `take_touched` has something to tell."""
        self._remotes = remotes
        self._on_touched = on_touched
        self._own = OwnRows()
        self._connection: Any = None
        self._touched = Touched()
        self._told = False
        self._lock = threading.Lock()

    def open(self) -> None:
        """Connect and load the replica.

        Raises:
            UnavailableError: it does not answer.
        """
        self._connection = connect(self._remotes, TIMEOUT_SECONDS, self._on_row)

    def close(self) -> None:
        """Disconnect, and wait until the connection's thread has ended."""
        if self._connection is not None:
            self._connection.stop(TIMEOUT_SECONDS)

    def take_touched(self) -> Touched:
        """Return what has changed since the last call."""
        with self._lock:
            taken, self._touched, self._told = self._touched, Touched(), False
            return taken

    def write(self, batch: Batch) -> Written:
        """Make the rows of some owners as they shall be, in one transaction.

        Raises:
            UnavailableError: it cannot be told whether it is written.
            RefusedError: it is not written, and will not be as it is.
        """
        replica = self._connection.idl
        change = Change(self._own, replica.tables, batch)
        api = SimpleNamespace(idl=replica)
        transaction = Transaction(api, self._connection, TIMEOUT_SECONDS, check_error=True, log_errors=False)
        transaction.add(change)
        try:
            transaction.commit()
        except (OvsdbAppException, queue.Full, OSError) as error:
            raise UnavailableError(f"{self._remotes}: no answer in time") from error
        except RuntimeError as error:
            raise self._failure(str(error)) from error
        return Written(len(change.plan.operations), change.plan.waiting)

    def _failure(self, message: str) -> OvnError:
        """Tell what is refused from what may work later; the library has one error for both."""
        _, _, detail = message.partition("OVSDB Error: ")
        if detail.startswith("{"):
            return RefusedError(detail)
        if detail:
            return UnavailableError(f"{self._remotes}: another operator holds the lock for writing")
        return UnavailableError(f"{self._remotes}: {message}")

    def _on_row(self, event: str, row: Any) -> None:
        """Hear of a row in the connection's thread."""
        with self._lock:
            self._own.read(event, row, self._touched)
            tell, self._told = not self._told, True
        if tell:
            self._on_touched()
