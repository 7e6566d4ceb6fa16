"""Who among the servers of a database takes its writes, who answers reads, and who hangs: known to a whole process.

A role is looked at when a connection is opened: the server says in its greeting whether it is in recovery, which costs
no trip. For writes all servers are looked at, unless that was a moment ago and no connection has been lost since. Where
several say that they take writes, an old primary has come back beside the one that took its place: promoting begins a
new timeline, so the newest is right. That guard is the second; the first is that whoever promotes ends the old primary.
"""

import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import pg8000.native
from pg8000.exceptions import DatabaseError, InterfaceError

from booking.platform.postgres_urls import Address, parse_database_url
from booking.platform.silence import Silence
from booking.platform.telemetry import logger

CONNECTION_FAULTS = (InterfaceError, OSError)
"""What a connection says when its server died, was restarted or hangs. After one of these it is useless."""

AWAY_STATES = frozenset({"57P01", "57P02", "57P03", "53300"})
"""SQLSTATEs of a server that shuts down, starts, or has no connection left."""

SILENT_S = 1.0
_LEADERLESS_S = 0.2
_TRUSTED_S = 5.0
"""After a look at all servers connections are opened for so long to the one that took writes, without another look."""
_SECOND_LOOK_S = 0.5
"""For asking a server that is needed only for certainty, while another one is at hand."""
_STANDBY_AGAIN_S = 10.0
_ASKING_S_MAX = 10.0
"""While one thread asks a silent server, or looks for a primary, the others fail at once; for so long at most."""
_TIMELINE = "select ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint"

_databases: dict[str, "Database"] = {}


class NoServer(Exception):
    """None of the servers can be asked, or none of them takes writes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take on a connection."""

    connect_timeout_s: float
    statement_timeout_ms: int
    lock_timeout_ms: int


@dataclass(slots=True)
class Opened:
    """A connection and the server at its other end."""

    connection: pg8000.native.Connection
    host: Address
    better_after_s: float | None = None
    """When to look for a standby again: the connection reads from a primary for want of one. A monotonic time."""

    @property
    def in_recovery(self) -> bool:
        """Whether the server is a standby, as it said last: it says so anew when it is promoted."""
        return bool(self.connection.parameter_statuses.get("in_hot_standby") == "on")

    def look_again_later(self) -> None:
        """There is no standby just now."""
        self.better_after_s = time.monotonic() + _STANDBY_AGAIN_S

    def close(self) -> None:
        """Never raises: it may be dead, which is why it is closed."""
        with suppress(DatabaseError, *CONNECTION_FAULTS):
            self.connection.close()


class Database:
    """The servers of one URL, as all threads of this process know them."""

    def __init__(self, url: str) -> None:
        self.url = parse_database_url(url)
        self.writer: Address | None = None
        """Who takes writes, as far as is known: one object for as long as it is the same."""
        self._trusted_until_s = 0.0
        self._standby: Address | None = None
        self._silences = {host: Silence(lambda: _ASKING_S_MAX) for host in self.url.hosts}
        # While there is no primary one thread looks for it, and the others fail at once.
        self._leaderless = Silence(lambda: _ASKING_S_MAX)

    def open_writer(self, limits: Limits) -> Opened:
        """A connection to whoever takes writes. Raises NoServer, and DatabaseError for what waiting does not heal."""
        if self.writer is not None and time.monotonic() < self._trusted_until_s:
            with suppress(NoServer):
                opened = self._open(self.writer, limits)
                if self._takes_writes(opened):
                    return opened
                opened.close()
        if self._leaderless.refuses():
            raise NoServer("there was no primary a moment ago")
        leaderless_s = _LEADERLESS_S
        try:
            opened = self._find_writer(limits)
            leaderless_s = 0.0
        finally:
            self._leaderless.heard(leaderless_s)
        self._follow(opened.host)
        return opened

    def open_reader(self, limits: Limits) -> Opened:
        """A connection to a standby, else to whoever answers. Raises as ``open_writer``."""
        if self._standby is not None:
            with suppress(NoServer):
                opened = self._open(self._standby, limits)
                if opened.in_recovery:
                    return opened
                opened.close()
        found, standby = self._look(limits, standby=True)
        if standby is not None:
            self._standby = standby.host
            _close(found)
            return standby
        newest = self._newest(found)
        newest.look_again_later()
        return newest

    def open_standby(self, limits: Limits) -> Opened | None:
        """A connection to a standby if one answers soon, for a reader that has to do without."""
        for host in self.url.hosts:
            with suppress(NoServer, DatabaseError):
                opened = self._open(host, limits, _SECOND_LOOK_S)
                if opened.in_recovery:
                    self._standby = host
                    return opened
                opened.close()
        return None

    def doubt(self) -> None:
        """A connection was lost: look at all servers before the next one is written to."""
        self._trusted_until_s = 0.0

    def silence(self, host: Address) -> Silence:
        """What is known of a server that lets statements time out."""
        return self._silences[host]

    def _find_writer(self, limits: Limits) -> Opened:
        if len(self.url.hosts) == 1:
            # An endpoint or a proxy: it knows who takes writes, and a statement that meets a standby says so (25006).
            return self._open(self.url.hosts[0], limits)
        found, _ = self._look(limits)
        takers = [opened for opened in found if self._takes_writes(opened)]
        _close([opened for opened in found if opened not in takers])
        if not takers:
            raise NoServer("no server takes writes")
        return self._newest(takers)

    def _look(self, limits: Limits, standby: bool = False) -> tuple[list[Opened], Opened | None]:
        """Connections to all servers that answer; where a ``standby`` will do, to those before the first, and to it.

        Raises NoServer when none answers, DatabaseError when all that answer refuse for good.
        """
        found: list[Opened] = []
        refused: DatabaseError | None = None
        for host in self.url.hosts:
            try:
                opened = self._open(host, limits, _SECOND_LOOK_S if found else None)
            except NoServer:
                continue
            except DatabaseError as fault:
                refused = fault
                continue
            if standby and (opened.in_recovery or len(self.url.hosts) == 1):
                return found, opened
            found.append(opened)
        if not found:
            raise refused or NoServer("no server answers")
        return found, None

    def _newest(self, found: Sequence[Opened]) -> Opened:
        """Of servers that say that they are the primary, the one that was promoted last. Closes the others.

        Raises NoServer when none can say.
        """
        if len(found) == 1:
            return found[0]
        timelines: list[tuple[int, Opened]] = []
        for opened in found:
            try:
                timelines.append((opened.connection.run(_TIMELINE)[0][0], opened))
            except (DatabaseError, *CONNECTION_FAULTS):
                opened.close()
        if not timelines:
            raise NoServer("no server answers")
        timelines.sort(key=lambda one: one[0])
        _close([opened for _, opened in timelines[:-1]])
        if len(timelines) > 1:
            told = {"{}:{}".format(*opened.host): timeline for timeline, opened in timelines}
            logger().error("several servers take writes: the one of the newest timeline is used", timelines=told)
        return timelines[-1][1]

    def _takes_writes(self, opened: Opened) -> bool:
        if len(self.url.hosts) == 1:
            return True
        statuses = opened.connection.parameter_statuses
        if "in_hot_standby" in statuses:
            return not opened.in_recovery and statuses.get("default_transaction_read_only") != "on"
        try:  # a pooler in front of it keeps that to itself
            return bool(opened.connection.run("show transaction_read_only")[0][0] == "off")
        except (DatabaseError, *CONNECTION_FAULTS):
            return False

    def _follow(self, host: Address) -> None:
        self._trusted_until_s = time.monotonic() + _TRUSTED_S
        if self.writer == host:
            return
        if self.writer is not None:
            logger().warning("another server takes writes now", server="{}:{}".format(*host))
        self.writer = host

    def _open(self, host: Address, limits: Limits, within_s: float | None = None) -> Opened:
        """Connect to one server. Raises NoServer when it is away, DatabaseError when it refuses for good."""
        silence = self._silences[host]
        if silence.refuses():
            raise NoServer("it has not answered a moment ago and is not asked just now")
        silent_s = 0.0
        try:
            return Opened(self._connect(host, limits, within_s or limits.connect_timeout_s), host)
        except CONNECTION_FAULTS as fault:
            if timed_out(fault):
                silent_s = SILENT_S
            raise NoServer(str(fault)) from fault
        except DatabaseError as fault:
            if sqlstate(fault) in AWAY_STATES:
                raise NoServer(str(fault)) from fault
            raise
        finally:
            silence.heard(silent_s)

    def _connect(self, host: Address, limits: Limits, within_s: float) -> pg8000.native.Connection:
        connected = socket.create_connection(host, within_s)
        try:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection = pg8000.native.Connection(
                self.url.user,
                sock=connected,
                database=self.url.database,
                password=self.url.password,
                # A default context costs 35 ms of CPU per connection; on AWS the proxy in front of RDS speaks TLS.
                ssl_context=False,
                application_name="encore",
                startup_params={
                    "statement_timeout": str(limits.statement_timeout_ms),
                    "lock_timeout": str(limits.lock_timeout_ms),
                    # A function killed between two statements must not sit on its locks.
                    "idle_in_transaction_session_timeout": "10000",
                },
            )
        except BaseException:
            connected.close()
            raise
        # The server ends a statement in time; who hears nothing for longer than that talks to one that hangs.
        connected.settimeout(limits.connect_timeout_s + limits.statement_timeout_ms / 1000)
        return connection


def database(url: str) -> Database:
    """What this process knows of the database with this URL."""
    return _databases.get(url) or _databases.setdefault(url, Database(url))


def timed_out(fault: BaseException | None) -> bool:
    """Whether the server was asked and did not answer. pg8000 wraps some of these."""
    while fault is not None and not isinstance(fault, TimeoutError):
        fault = fault.__cause__ or fault.__context__
    return fault is not None


def sqlstate(fault: DatabaseError) -> str | None:
    """The SQLSTATE of an error that the server sent, None for an error of the driver's own."""
    details = fault.args[0] if fault.args else None
    return details.get("C") if isinstance(details, dict) else None


def _close(found: Sequence[Opened]) -> None:
    for opened in found:
        opened.close()
