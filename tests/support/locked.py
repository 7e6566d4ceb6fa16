"""Who waits for whom in Postgres: brings a hold to a stop at its worst moment."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pg8000.native

from booking.platform.postgres import primary
from booking.platform.settings import settings
from support.shop import Shop

_WAIT_S_MAX = 20


@contextmanager
def seats_locked(shop: Shop, numbers: Sequence[int] | None = None) -> Iterator[None]:
    """Somebody's transaction has the rows of these seats, or of all: who wants them waits, the Redis locks taken."""
    address = urlsplit(settings().database_url)
    connection = pg8000.native.Connection(
        address.username or "", password=address.password, host=address.hostname or "", port=address.port or 0,
        database=address.path.lstrip("/"), ssl_context=False,
    )  # fmt: skip
    with closing(connection):
        connection.run("begin")
        connection.run(
            "select from seat where schedule_id = :id"
            " and (number = any (cast(:numbers as integer[])) or cast(:numbers as integer[]) is null) for update",
            id=shop.concert_id,
            numbers=numbers,
        )
        yield
        connection.run("commit")


def waiting(function: str = "hold_seats") -> list[int]:
    """Postgres' process ids of those whose call of the function waits for a lock."""
    rows = primary().rows(
        "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        " and query like '%' || cast(:function as text) || '(%'",
        function=function,
    )
    return [row[0] for row in rows]


def wait_until_some_wait(how_many: int) -> list[int]:
    deadline_s = time.monotonic() + _WAIT_S_MAX
    while len(pids := waiting()) < how_many:
        assert time.monotonic() < deadline_s, f"only {len(pids)} holds came as far as the seats"
        time.sleep(0.005)
    return pids
