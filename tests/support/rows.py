"""Rows that somebody else has locked, and who waits for them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from booking.platform.postgres import Server, primary
from booking.platform.settings import settings
from support.waiting import wait_for


@contextmanager
def transaction(statement: str, **parameters: object) -> Iterator[Server]:
    """Somebody else's transaction that has run a statement and does not end before the block, or the test, ends it."""
    with closing(Server(settings().database_url)) as other:
        other.rows("begin")
        other.rows(statement, **parameters)
        yield other


@contextmanager
def locked_seats(schedule_id: int, numbers: list[int]) -> Iterator[Server]:
    """Somebody else has these seats' rows locked."""
    seats = "select from seat where schedule_id = :id and number = any (:numbers) for update"
    with transaction(seats, id=schedule_id, numbers=numbers) as other:
        yield other


def wait_until_somebody_waits(other: Server) -> None:
    """Return when somebody waits for a lock of this connection."""
    waits = (
        "select exists (select from pg_locks"
        " where not granted and cast(:holder as integer) = any (pg_blocking_pids(pid)))"
    )
    holder = other.value("select pg_backend_pid()")
    wait_for(lambda: primary().value(waits, holder=holder), within_s=10, every_s=0.002)


def waiting(function: str = "hold_seats") -> list[int]:
    """Postgres' process ids of those whose call of a function waits for a lock, or sleeps in a test's pause."""
    rows = primary().rows(
        "select pid from pg_stat_activity where datname = current_database() and wait_event_type in ('Lock', 'Timeout')"
        " and query like '%' || cast(:function as text) || '(%'",
        function=function,
    )
    return [row[0] for row in rows]


def wait_until_some_wait(how_many: int, function: str = "hold_seats") -> list[int]:
    """Return when so many wait in that function: whose they are."""
    wait_for(lambda: len(waiting(function)) >= how_many, within_s=10, every_s=0.002)
    return waiting(function)


def deadlocks() -> int:
    """How many deadlocks Postgres has seen in this database."""
    primary().rows("select pg_stat_clear_snapshot()")
    return int(primary().value("select deadlocks from pg_stat_database where datname = current_database()"))
