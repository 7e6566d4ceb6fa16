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


def deadlocks() -> int:
    """How many deadlocks Postgres has seen in this database."""
    primary().rows("select pg_stat_clear_snapshot()")
    return int(primary().value("select deadlocks from pg_stat_database where datname = current_database()"))
