"""Whether hash partitions of the seats pay, and from which size: the same data set with and without them, side by side.

Each size is loaded into two databases of the benchmarks' Postgres, whose seats are one table and ``PARTITIONS``. What
is asked is spread over all schedules: a sale that meets one schedule meets one partition, and proves nothing.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from benchmarks import tools
from benchmarks.cases import CLIENTS, own_sql
from benchmarks.measure import Case, Result, measure
from benchmarks.stage import INSTANCE
from benchmarks.tools import ToolError
from booking.platform.migrate import migrate
from booking.platform.resources import read_text
from encore_stack.dataset import Counts, load
from encore_stack.instance import Instance
from encore_stack.parts.postgres import connect
from encore_stack.stack import Stack

PARTITIONS = 16
SIZES = (1_500_000, 15_000_000)
SEATS_PER_SCHEDULE, SCHEDULES_PER_CONCERT = 150, 100
SEATS_STEP = SEATS_PER_SCHEDULE * SCHEDULES_PER_CONCERT
"""The smallest size: one concert; others are multiples of it."""

_BYTES_A_SEAT = 200
"""With its index, and with what it leaves in the log until the next checkpoint."""
_BYTES_BESIDE = 8 * 2**30
"""What the log may keep (for a checkpoint and for a replica that does not run), and the tables of the holds."""


@dataclass(frozen=True)
class Size:
    """What was measured at one size. ``load_s``: one table, partitions; None where the databases were there already."""

    seats: int
    load_s: tuple[float, float] | None
    results: Sequence[Result]


def measure_partitions(
    sizes: Sequence[int], rounds: int, duration_s: float, *, keep: bool, tell: Callable[[str], None]
) -> list[Size]:
    """Load and measure each size. ``keep``: leave the databases to the next run. Raises ToolError."""
    instance = Instance.load(INSTANCE)
    instance.make_dirs()
    for seats in sizes:
        _check_disk(instance, seats)
    tell("Postgres")
    Stack(instance).up(("postgres",))
    return [_measure_size(Instance.load(INSTANCE), seats, rounds, duration_s, keep, tell) for seats in sizes]


def as_markdown(sizes: Sequence[Size]) -> str:
    """The table of load/seats.md."""
    lines = [
        f"| seats | | one table | {PARTITIONS} partitions | cost x | least-most |",
        "|---|---|---|---|---|---|",
    ]
    for size in sizes:
        if size.load_s:
            plain_s, partitioned_s = size.load_s
            times = f"{partitioned_s / plain_s:.2f}"
            lines.append(f"| {size.seats:,} | load, s | {plain_s:.1f} | {partitioned_s:.1f} | {times} | one load |")
        for result in size.results:
            lines.append(f"| {size.seats:,} | {_row(result)} |")
    return "\n".join(lines)


def _row(result: Result) -> str:
    if result.fault:
        return f"{result.name} | could not be measured: {result.fault} | | |"
    median, least, most = result.times
    rate, floor_rate = (sorted(rates)[len(rates) // 2] for rates in (result.rates, result.floor_rates))
    return f"{result.name}, /s | {floor_rate:,.0f} | {rate:,.0f} | {median:.2f} | {least:.2f}-{most:.2f}"


def _measure_size(
    instance: Instance, seats: int, rounds: int, duration_s: float, keep: bool, tell: Callable[[str], None]
) -> Size:
    plain, partitioned = f"encore_seats_{seats}", f"encore_seats_{seats}_in_{PARTITIONS}"
    try:
        times_s = [_load(instance, plain, seats, 0, tell), _load(instance, partitioned, seats, PARTITIONS, tell)]
        load_s = (times_s[0], times_s[1]) if times_s[0] is not None and times_s[1] is not None else None
        schedules = seats // SEATS_PER_SCHEDULE
        anywhere = own_sql("seat_map_anywhere.sql") + read_text("booking.seats", "sql/seat_map.sql")
        statements = {"hold_seats": own_sql("hold_seats.sql"), "seat map": anywhere}
        results = []
        for name, statement in statements.items():

            def rate(database: str, statement: str = statement) -> Callable[[], float]:
                libpq, variables = _libpq(instance, database), {"schedules": schedules}
                return lambda: tools.pgbench(libpq, statement, CLIENTS, duration_s, variables)

            case = Case(f"{seats:,} seats", name, "one table", rate(partitioned), rate(plain))
            measure(case, 1, lambda _: None)  # the first to come waits for the disk
            results.append(measure(case, rounds, tell))
        return Size(seats, load_s, results)
    finally:
        if not keep:
            tell(f"{seats:,} seats: dropping the databases")
            for database in (plain, partitioned):
                _as_superuser(instance, f"drop database if exists {database} with (force)")


def _load(instance: Instance, database: str, seats: int, partitions: int, tell: Callable[[str], None]) -> float | None:
    """Make and fill the database; the seconds that loading took, None where an earlier run has done it."""
    schedules = seats // SEATS_PER_SCHEDULE
    url = instance.database_url().rsplit("/", 1)[0] + f"/{database}"
    with closing(connect(instance, "postgres", "postgres", "postgres")) as superuser:
        if not superuser.run("select 1 from pg_database where datname = :name", name=database):
            superuser.run(f"create database {database} owner encore")
    with _environment({"ENCORE_SEAT_PARTITIONS": str(partitions)}):
        migrate(url)
    started_s = time.monotonic()
    concerts = schedules // SCHEDULES_PER_CONCERT
    added = load(url, Counts(concerts, schedules, seats), lambda text: tell(f"{database}: {text}"))
    took_s = time.monotonic() - started_s
    with closing(connect(instance, "postgres", database=database)) as connection:
        for statement in own_sql("partitions.sql").replace(":schedules", str(schedules)).split(";\n"):
            connection.run(statement)
    if not added.seats:
        return None
    tell(f"{database}: loaded in {took_s:.1f} s; vacuum and checkpoint, so that nothing of it is left to do later")
    _as_superuser(instance, "vacuum seat", database)
    _as_superuser(instance, "checkpoint")
    return took_s


def _check_disk(instance: Instance, seats: int) -> None:
    needed, free = 2 * seats * _BYTES_A_SEAT + _BYTES_BESIDE, shutil.disk_usage(instance.dir).free
    if free < needed:
        raise ToolError(
            f"{seats:,} seats with and without partitions need about {needed / 2**30:.0f} GiB in {instance.dir}, where"
            f" {free / 2**30:.0f} GiB are free; fewer with --seats"
        )


def _libpq(instance: Instance, database: str) -> Mapping[str, str]:
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(instance.ports["postgres"]),
        "PGUSER": "encore",
        "PGPASSWORD": instance.secrets()["database_password"],
        "PGDATABASE": database,
    }


def _as_superuser(instance: Instance, statement: str, database: str = "postgres") -> None:
    with closing(connect(instance, "postgres", "postgres", database)) as superuser:
        superuser.run(statement)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """With these variables, until it is over."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
