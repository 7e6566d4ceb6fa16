"""What the benchmarks play on: an instance of its own, the full data set, a line with people in it, papers for buyers.

The standard data set gives 15,000 seats a concert; seats are taken in order by one counter in the database, which
buyers over HTTP and pgbench's clients share, so that no seat is asked for twice.
"""

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pg8000.native

from benchmarks.floors.app import BODY_KEY
from booking.platform.migrate import migrate
from booking.platform.redis import redis
from booking.platform.redis_keys import line_key
from booking.platform.settings import settings
from booking.queue import Pass, join_line, person_of
from booking.queue.gate import RATE_PER_S_MAX, change_gate
from booking.queue.tokens import sign_pass
from encore_stack.dataset import FULL, load
from encore_stack.instance import POSTGRES_SERVERS, Instance
from encore_stack.parts import part_named
from encore_stack.parts.postgres import connect
from encore_stack.stack import Stack

INSTANCE = "bench"
DATABASE = "encore"
FLOOR_DATABASE = "encore_floor"
"""A copy of the database for pgbench: it pays without asking a payment firm, which the audit would rightly report."""

SERVERS = (*POSTGRES_SERVERS, "redis", "danal", "payco")
SQL = Path(__file__).parent / "sql"
LINE_CONCERT_ID = 1
"""The concert that people wait for; the others' seats are sold."""
SHOP_CONCERT_ID = 2
SHOP_SCHEDULE_ID = SHOP_CONCERT_ID * 100 + 1
LINE_LENGTH = 100_000
LINE_RATE_PER_S = 200


class Stage:
    """The running servers and everything that a case needs to make requests."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.instance = Instance.load(INSTANCE)
        self._say = say

    def set_up(self) -> None:
        """Start the servers, migrate, load, fill the line. Quick where that is done already."""
        self._say("servers")
        Stack(self.instance).up(SERVERS)
        os.environ.update(self.environment())
        settings.cache_clear()
        self._say("database")
        migrate(self.instance.database_url(self.instance.postgres_primary))
        load(self.instance.database_url(self.instance.postgres_primary), FULL, self._say)
        with closing(self.connection()) as connection:
            connection.run(SQL.joinpath("setup.sql").read_text())
        self._copy_database()
        redis("cache").set(BODY_KEY, "x" * 12_000)
        self._fill_line()

    def environment(self) -> dict[str, str]:
        """Of the gateway: the stack's own."""
        return {**part_named("gateway").environment(self.instance)}

    def connection(self, database: str = DATABASE, user: str = "encore") -> pg8000.native.Connection:
        """A connection to the primary, by default as the booking role."""
        return connect(self.instance, self.instance.postgres_primary, user, database)

    def libpq_environment(self) -> dict[str, str]:
        """Where the database of the floors is, for programs that use libpq."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.instance.ports[self.instance.postgres_primary]),
            "PGUSER": "encore",
            "PGPASSWORD": self.instance.secrets()["database_password"],
            "PGDATABASE": FLOOR_DATABASE,
        }

    def new_user_ids(self, count: int) -> list[str]:
        """People who were never seen before."""
        first = time.time_ns()
        return [f"bench-{first + index}" for index in range(count)]

    def tokens(self, count: int) -> list[str]:
        """Tokens of ``count`` people who wait in the line."""
        return [join_line(LINE_CONCERT_ID, person_of(user_id)).token for user_id in self.new_user_ids(count)]

    def take_seats(self, count: int) -> list["Seat"]:
        """The next ``count`` seats that nobody has."""
        with closing(self.connection()) as connection:
            first, last = _advance(connection, count)
            rows = connection.run(
                "select concert_id, person, pass_id, schedule_id, number"
                " from generate_series(cast(:first as bigint), cast(:last as bigint)) as n, bench_seat_at(n)",
                first=first,
                last=last,
            )
        return [Seat(*row) for row in rows]

    def hold(self, count: int, database: str = DATABASE) -> list["Held"]:
        """Hold the next ``count`` seats, one for each of as many buyers; pgbench's next payments there are theirs."""
        with closing(self.connection(database)) as connection:
            first, last = _advance(connection, count)
            rows = connection.run(SQL.joinpath("hold_range.sql").read_text(), first=first, last=last)
            connection.run("select setval('bench_payment', cast(:first as bigint), false)", first=first)
        return [Held(*row) for row in rows]

    def _copy_database(self) -> None:
        with closing(self.connection("postgres", user="postgres")) as connection:
            if connection.run("select 1 from pg_database where datname = :name", name=FLOOR_DATABASE):
                return
            self._say("a copy of the database for the floors")
            connection.run(f"create database {FLOOR_DATABASE} template {DATABASE} owner encore")

    def _fill_line(self) -> None:
        """A shop that is full and people who wait for it, so that a join finds what it finds in a rush."""
        change_gate(LINE_CONCERT_ID, "rate", RATE_PER_S_MAX, by="scripts/bench")
        waiting = redis("queue").zcard(line_key(LINE_CONCERT_ID, "waiting"))
        self._say(f"a line of {LINE_LENGTH:,}")
        for user_id in self.new_user_ids(LINE_LENGTH - int(waiting)):
            join_line(LINE_CONCERT_ID, person_of(user_id))
        change_gate(LINE_CONCERT_ID, "rate", LINE_RATE_PER_S, by="scripts/bench")


@dataclass(frozen=True)
class Buyer:
    """Somebody with a pass of a concert."""

    concert_id: int
    person: str
    pass_id: str

    def shop_pass(self) -> str:
        """The buyer's signed pass."""
        return pass_of(self.person, self.concert_id, self.pass_id)


@dataclass(frozen=True)
class Seat(Buyer):
    """The one buyer whom a seat is for."""

    schedule_id: int
    number: int


@dataclass(frozen=True)
class Held(Buyer):
    """The buyer of a reservation."""

    reservation_id: str


def _advance(connection: pg8000.native.Connection, count: int) -> tuple[int, int]:
    """The numbers of the first and the last of the next ``count`` seats."""
    [[last]] = connection.run(
        "select setval('bench_seat', nextval('bench_seat') + cast(:more as bigint))", more=count - 1
    )
    return last - count + 1, last


def pass_of(person: str, concert_id: int, pass_id: str) -> str:
    """A signed pass as the line gives them, good for an hour."""
    return sign_pass(Pass(concert_id, person, 1, 1, 1, pass_id, int(time.time()) + 3600))
