"""Postgres: one connection for each server and thread, opened at first use, prepared statements, one trip a statement.

Every statement is its own transaction (autocommit): what must happen together is one SQL function. The caller says by
name which server answers: ``primary()`` for writes and for what a person owns, ``replica()`` for the rest.
"""

import threading
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import pg8000.native
from pg8000.exceptions import DatabaseError, InterfaceError

from booking.platform.problems import Unavailable
from booking.platform.settings import settings

Row = list[Any]

# What a connection says when its server died, was restarted, or is shutting down. After one of these it is useless.
_CONNECTION_FAULTS = (InterfaceError, OSError)
_SERVER_GOING_AWAY = {"57P01", "57P02", "57P03", "53300", "25006"}
_GAVE_UP_WAITING = {"55P03", "57014", "40P01", "40001"}

_servers = threading.local()


class DatabaseAway(Unavailable):
    """The database is away for a moment; nothing was changed that the same request will not find, please try again."""

    slug = "database-away"


class DatabaseBusy(Unavailable):
    """The database is busy with these seats; nothing was changed, please try again."""

    slug = "database-busy"


class Server:
    """One Postgres server as one thread sees it: a lazily opened connection and its prepared statements."""

    def __init__(self, url: str, *, statement_timeout_ms: int | None = None) -> None:
        self._address = urlsplit(url)
        self._statement_timeout_ms = statement_timeout_ms or settings().statement_timeout_ms
        self._connection: pg8000.native.Connection | None = None
        self._prepared: dict[str, pg8000.native.PreparedStatement] = {}

    def rows(self, sql: str, *, safe_to_repeat: bool = True, **parameters: Any) -> list[Row]:
        """Run one statement and return its rows.

        ``safe_to_repeat`` says that running it twice does no harm: then a connection that turns out to be dead is
        replaced and the statement is sent once more. Raises DatabaseAway when the server cannot be asked (or, for a
        statement not safe to repeat, when its outcome is unknown), DatabaseBusy when a timeout ended the wait for a
        lock, and pg8000's DatabaseError for everything that is a fault of the statement.
        """
        attempts = 2 if safe_to_repeat else 1
        for attempt in range(1, attempts + 1):
            try:
                return self._run(sql, parameters)
            except _CONNECTION_FAULTS as fault:
                self.close()
                if attempt == attempts:
                    raise DatabaseAway(retry_after_s=2) from fault
            except DatabaseError as fault:
                code = sqlstate(fault)
                if code in _GAVE_UP_WAITING:
                    raise DatabaseBusy(retry_after_s=1) from fault
                if code not in _SERVER_GOING_AWAY:
                    raise
                self.close()
                if attempt == attempts:
                    raise DatabaseAway(retry_after_s=2) from fault
        raise AssertionError("unreachable: every attempt returns or raises")

    def value(self, sql: str, *, safe_to_repeat: bool = True, **parameters: Any) -> Any:
        """The first column of the first row, None when there is no row. Raises as ``rows``."""
        found = self.rows(sql, safe_to_repeat=safe_to_repeat, **parameters)
        return found[0][0] if found else None

    def document(self, sql: str, *, safe_to_repeat: bool = True, **parameters: Any) -> Any:
        """The first column of the first row, JSON text, decoded; None when there is no row. Raises as ``rows``."""
        text = self.value(sql, safe_to_repeat=safe_to_repeat, **parameters)
        return None if text is None else msgspec.json.decode(text)

    def close(self) -> None:
        """Forget the connection; the next statement opens another. Never raises."""
        connection, self._connection = self._connection, None
        self._prepared.clear()
        if connection is not None:
            try:
                connection.close()
            except (DatabaseError, *_CONNECTION_FAULTS):
                pass  # already dead, which is why it is being forgotten

    def _run(self, sql: str, parameters: dict[str, Any]) -> list[Row]:
        if self._connection is None:
            self._connection = self._open()
        statement = self._prepared.get(sql)
        if statement is None:
            statement = self._prepared[sql] = self._connection.prepare(sql)
        return statement.run(**parameters) or []

    def _open(self) -> pg8000.native.Connection:
        address = self._address
        return pg8000.native.Connection(
            unquote(address.username or ""),
            host=address.hostname or "127.0.0.1",
            port=address.port or 5432,
            database=address.path.lstrip("/"),
            password=unquote(address.password or ""),
            # A default context costs 35 ms of CPU per connection; on AWS the proxy in front of RDS speaks TLS.
            ssl_context=False,
            timeout=settings().connect_timeout_s + self._statement_timeout_ms / 1000,
            application_name="encore",
            startup_params={
                "statement_timeout": str(self._statement_timeout_ms),
                "lock_timeout": str(settings().lock_timeout_ms),
                # A function killed between two statements must not sit on its locks.
                "idle_in_transaction_session_timeout": "10000",
            },
        )


def sqlstate(fault: DatabaseError) -> str | None:
    """The SQLSTATE of an error that the server sent, None for an error of the driver's own."""
    details = fault.args[0] if fault.args else None
    return details.get("C") if isinstance(details, dict) else None


def primary() -> Server:
    """This thread's connection to the server that takes writes."""
    return _server(settings().database_url)


def replica() -> Server:
    """This thread's connection to the read replica. It answers only for what it has replayed."""
    return _server(settings().replica_url)


def read_anywhere(sql: str, **parameters: Any) -> list[Row]:
    """Rows from the replica, or from the primary while the replica is away or gives up (replaying may cancel what it
    answers). For reads that may be a moment old."""
    try:
        return replica().rows(sql, **parameters)
    except (DatabaseAway, DatabaseBusy):
        return primary().rows(sql, **parameters)


def _server(url: str) -> Server:
    servers: dict[str, Server] = _servers.__dict__.setdefault("by_url", {})
    if url not in servers:
        servers[url] = Server(url)
    return servers[url]
