"""The data set: concerts, schedules and seats, loaded by COPY.

Additive and repeatable: ids follow from the counts, what is there already is left as it is, what is missing is added.
So a first look can be widened to the full set without losing a reservation.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pg8000.native

SCHEDULES_PER_CONCERT_MAX = 100
SEATS_PER_ROW = 10
_COPY_CHUNK_BYTES = 1 << 20
_SECTIONS = (("R", 165_000), ("S", 143_000), ("A", 110_000))
"""Section names and prices in won, from the stage outwards."""
_UPCOMING_EVERY = 25
"""One concert in this many has not opened its sale yet: the catalogue shows both."""
_UPCOMING_REMAINDER = 5
_DRAW_EVERY = 50
"""Of the concerts to come every second one collects people for a draw."""
_DRAW_REMAINDER = 30

_CAST = (
    ("Encore Night", "The Paper Lanterns", "Han River Dome"),
    ("Nine Years Later", "Seo Haru", "Jamsil Main Stadium"),
    ("Winter Letters", "Blue Persimmon", "Olympic Hall"),
    ("Second Wave", "Harbor Static", "Busan Sea Arena"),
    ("Moonlight Tour", "Yoon Ara & the Tides", "Incheon Sky Park"),
    ("Unplugged in Autumn", "Min Jiho", "Blue Square"),
    ("All the Small Hours", "Night Bus 402", "Yes Hall"),
    ("Homecoming", "Gyeongui Line", "Daegu Music Hall"),
)

_ADD_CONCERTS = """
insert into concert (id, title, artist, venue, sales_open_at, refund_until, line_mode, draw_seed)
select id, title, artist, venue,
       date_trunc('hour', now()) + case when upcoming then interval '30 days' else interval '-1 day' end,
       date_trunc('day', now()) + interval '59 days',
       case when seed is null then 'fifo' else 'draw' end, seed
from unnest(cast(:ids as bigint[]), cast(:titles as text[]), cast(:artists as text[]), cast(:venues as text[]),
            cast(:upcoming as boolean[]), cast(:seeds as text[])) as wanted (id, title, artist, venue, upcoming, seed)
on conflict (id) do nothing
"""
_ADD_SCHEDULES = """
insert into schedule (id, concert_id, starts_at)
select s.id, s.concert_id,
       date_trunc('day', now()) + interval '60 days 10 hours' + (s.id - s.concert_id * 100) * interval '1 day'
from unnest(cast(:ids as bigint[]), cast(:concert_ids as bigint[])) as s (id, concert_id)
"""
_ADD_COUNTERS = """
insert into schedule_sales (schedule_id, concert_id, seats_total)
select id, concert_id, cast(:seats as integer)
from unnest(cast(:ids as bigint[]), cast(:concert_ids as bigint[])) as s (id, concert_id)
"""


class UnusableCounts(ValueError):
    """The counts do not make a data set; the message says how to mend them."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is to be in all. Raises UnusableCounts."""

    concerts: int
    schedules: int
    seats: int

    def __post_init__(self) -> None:
        if min(self.concerts, self.schedules, self.seats) < 1:
            raise UnusableCounts("concerts, schedules and seats must each be at least 1")
        if self.schedules % self.concerts:
            raise UnusableCounts(f"{self.schedules} schedules cannot be shared evenly by {self.concerts} concerts")
        if self.schedules // self.concerts > SCHEDULES_PER_CONCERT_MAX:
            raise UnusableCounts(f"at most {SCHEDULES_PER_CONCERT_MAX} schedules for each concert")
        if self.seats % self.schedules:
            raise UnusableCounts(f"{self.seats} seats cannot be shared evenly by {self.schedules} schedules")


FIRST_LOOK = Counts(concerts=5, schedules=20, seats=3_000)
FULL = Counts(concerts=100, schedules=10_000, seats=1_500_000)


def load(database_url: str, wanted: Counts, progress: Callable[[str], None]) -> "Added":
    """Add what is missing of ``wanted`` in one transaction; returns what was added. Raises pg8000's DatabaseError."""
    connection = _connect(database_url)
    try:
        connection.run("begin")
        connection.run("select pg_advisory_xact_lock(7331)")  # two seeds at once would add the same rows twice
        added = _add(connection, wanted, progress)
        connection.run("commit")
        if added.schedules:
            progress("analyzing")
            connection.run("analyze concert, schedule, seat, schedule_sales")
        return added
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Added:
    """What a run has added."""

    concerts: int
    schedules: int
    seats: int


def _connect(database_url: str) -> pg8000.native.Connection:
    address = urlsplit(database_url)
    return pg8000.native.Connection(
        address.username or "encore",
        password=address.password,
        host=address.hostname or "127.0.0.1",
        port=address.port or 5432,
        database=address.path.lstrip("/"),
        ssl_context=False,
        application_name="encore-seed",
    )


def _add(connection: pg8000.native.Connection, wanted: Counts, progress: Callable[[str], None]) -> Added:
    concert_ids = list(range(1, wanted.concerts + 1))
    known_concerts = {row[0] for row in connection.run("select id from concert")}
    new_concerts = [concert_id for concert_id in concert_ids if concert_id not in known_concerts]
    casts = [_CAST[(concert_id - 1) % len(_CAST)] for concert_id in new_concerts]
    connection.run(
        _ADD_CONCERTS,
        ids=new_concerts,
        titles=[title for title, _, _ in casts],
        artists=[artist for _, artist, _ in casts],
        venues=[venue for _, _, venue in casts],
        upcoming=[concert_id % _UPCOMING_EVERY == _UPCOMING_REMAINDER for concert_id in new_concerts],
        seeds=[
            secrets.token_hex(32) if concert_id % _DRAW_EVERY == _DRAW_REMAINDER else None
            for concert_id in new_concerts
        ],
    )
    known_schedules = {row[0] for row in connection.run("select id from schedule")}
    per_concert = wanted.schedules // wanted.concerts
    new = [
        (concert_id * SCHEDULES_PER_CONCERT_MAX + nth, concert_id)
        for concert_id in concert_ids
        for nth in range(1, per_concert + 1)
        if concert_id * SCHEDULES_PER_CONCERT_MAX + nth not in known_schedules
    ]
    ids, owners = [schedule_id for schedule_id, _ in new], [concert_id for _, concert_id in new]
    seats_each = wanted.seats // wanted.schedules
    connection.run(_ADD_SCHEDULES, ids=ids, concert_ids=owners)
    connection.run(_ADD_COUNTERS, ids=ids, concert_ids=owners, seats=seats_each)
    connection.run(
        "copy seat (schedule_id, number, section, row_label, price) from stdin",
        stream=_chunks(_seat_lines(ids, seats_each, progress)),
    )
    return Added(len(new_concerts), len(new), len(new) * seats_each)


def _seat_lines(schedule_ids: list[int], seats_each: int, progress: Callable[[str], None]) -> Iterator[str]:
    """The seats of each schedule as COPY text; all schedules of a run have the same plan of seats."""
    plan = "".join(
        f"@\t{number}\t{section}\t{row}\t{price}\n" for number, section, row, price in _seat_plan(seats_each)
    )
    for done, schedule_id in enumerate(schedule_ids):
        if done and done % 1_000 == 0:
            progress(f"{done * seats_each:,} of {len(schedule_ids) * seats_each:,} seats")
        yield plan.replace("@", str(schedule_id))


def _seat_plan(seats: int) -> Iterator[tuple[int, str, int, int]]:
    """(number, section, row, price) of each seat; sections of equal size, rows of ten, best first."""
    per_section = -(-seats // len(_SECTIONS))
    for index in range(seats):
        section, price = _SECTIONS[index // per_section]
        yield index + 1, section, index % per_section // SEATS_PER_ROW + 1, price


def _chunks(lines: Iterable[str]) -> Iterator[bytes]:
    """Join the lines into pieces worth a system call."""
    pending: list[str] = []
    size = 0
    for line in lines:
        pending.append(line)
        size += len(line)
        if size >= _COPY_CHUNK_BYTES:
            yield "".join(pending).encode()
            pending, size = [], 0
    yield "".join(pending).encode()
