"""The connection to the northbound database: a replica of what is written there, kept by ovsdbapp's thread."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ovs import jsonrpc
from ovs.poller import Poller
from ovs.stream import Stream
from ovsdbapp.backend.ovs_idl import idlutils
from ovsdbapp.backend.ovs_idl.connection import Connection, OvsdbIdl
from ovsdbapp.exceptions import OvsdbAppException

from virtfleet_operator.core.network.rows import COLUMNS, LISTS
from virtfleet_operator.ovn.errors import UnavailableError

DATABASE: Final = "OVN_Northbound"
LOCK: Final = "virtfleet_operator"
"""Lock of the database that a writer holds: a former leader that has not ended yet cannot write any more."""


@dataclass(frozen=True)
class OvnTls:
    """Files of the client's identity; read at every connect, so they may be renewed."""

    private_key: Path
    certificate: Path
    authority: Path


Notify = Callable[[str, Any], None]


class Replica(OvsdbIdl):  # type: ignore[misc]  # ovsdbapp ships no types
    """The rows of the tables that are written, and nothing of the others."""

    on_row: Notify | None = None

    def notify(self, event: str, row: Any, updates: Any = None) -> None:  # noqa: ARG002 -- the library's signature
        """Hear of a row that was created, changed or deleted. Called by the connection's thread."""
        if self.on_row is not None:
            self.on_row(event, row)


def use_tls(tls: OvnTls) -> None:
    """Set the identity for all connections of this process: the library knows only one."""
    Stream.ssl_set_private_key_file(str(tls.private_key))
    Stream.ssl_set_certificate_file(str(tls.certificate))
    Stream.ssl_set_ca_cert_file(str(tls.authority))


def connect(remotes: str, timeout_seconds: float, on_row: Notify) -> Connection:
    """Connect and load the replica; blocks for at most a few times `timeout_seconds`.

    `remotes` are as OVSDB has them: "unix:/path" or "ssl:host:port", several with commas.

    Raises:
        UnavailableError: it does not answer.
    """
    helper = idlutils.create_schema_helper(_read_schema(remotes, timeout_seconds))
    for table, columns in COLUMNS.items():
        state = ("up",) if table == "Logical_Switch_Port" else ()
        helper.register_columns(table, [*columns, *LISTS.get(table, ()), *state, "external_ids"])
    # Its one row is in every database that is in use, so a change of it tells of a database made anew.
    helper.register_columns("NB_Global", ["name"])
    replica = Replica(remotes, helper)
    replica.on_row = on_row
    replica.set_lock(LOCK)
    connection = Connection(replica, timeout_seconds)
    try:
        connection.start()
    except (OvsdbAppException, OSError) as error:
        replica.close()
        raise UnavailableError(f"{remotes}: {error}") from error
    return connection


def _read_schema(remotes: str, timeout_seconds: float) -> Any:
    """Return the schema of the first server that answers.

    The library's own function waits for ever for a server that accepts a connection and says nothing.
    """
    failure = "no address"
    for remote in idlutils.parse_connection(remotes):
        deadline = time.monotonic() + timeout_seconds
        error, stream = Stream.open_block(Stream.open(remote), round(timeout_seconds * 1000))
        if error:
            failure = f"{remote}: {os.strerror(error)}"
            continue
        session = jsonrpc.Connection(stream)
        try:
            return _ask(session, deadline)
        except (OSError, UnavailableError) as problem:
            failure = f"{remote}: {problem}"
        finally:
            session.close()
    raise UnavailableError(failure)


def _ask(session: jsonrpc.Connection, deadline: float) -> Any:
    session.send(jsonrpc.Message.create_request("get_schema", [DATABASE]))
    while (left := deadline - time.monotonic()) > 0:
        session.run()
        error, message = session.recv()
        if message is not None and message.type == jsonrpc.Message.T_REPLY:
            return message.result
        if error not in (0, errno.EAGAIN):
            raise UnavailableError(os.strerror(error) if error > 0 else "the connection was closed")
        poller = Poller()
        session.wait(poller)
        session.recv_wait(poller)
        poller.timer_wait(round(left * 1000))
        poller.block()
    raise UnavailableError("no answer in time")
