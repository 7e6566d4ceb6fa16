"""Whether hash partitions of the seats pay, and from which size: the same data set with and without them, side by side.

Each size is loaded into two databases of the benchmarks' Postgres, whose seats are one table and ``PARTITIONS``. What
is asked is spread over all schedules: a sale that meets one schedule meets one partition, and proves nothing.
"""

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from benchmarks import tools
from benchmarks.cases import CLIENTS, NOTHING_MARKED, own_sql
from benchmarks.measure import Case, Result, measure
from benchmarks.stage import INSTANCE
from benchmarks.tools import ToolError
from booking.platform.migrate import migrate
from booking.platform.resources import read_text
from encore_stack.dataset import Counts, load
from encore_stack.instance import Instance
from encore_stack.parts.postgres import connect
from encore_stack.ports import HOST
from encore_stack.stack import Stack

PARTITIONS = 16
_LOAD = "load"
SIZES = (1_500_000, 15_000_000)
SEATS_PER_SCHEDULE, SCHEDULES_PER_CONCERT = 150, 100
SEATS_STEP = SEATS_PER_SCHEDULE * SCHEDULES_PER_CONCERT
"""The smallest size: one concert; others are multiples of it."""

_BYTES_A_SEAT = 200
"""With its index, and with what it leaves in the log until the next checkpoint."""
_BYTES_BESIDE = 8 * 2**30
"""What the log may keep (for a checkpoint and for a replica that does not run), and the tables of the holds."""


_LOADS = 2
_EMPTY = "drop database if exists {0} with (force)", "create database {0} owner encore"


@dataclass(frozen=True)
class Size:
    """What was measured at one size, as rates; loading first, unless an earlier run has done it."""

    seats: int
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
    Stack(instance).up((instance.postgres_primary,))
    return [_measure_size(Instance.load(INSTANCE), seats, rounds, duration_s, keep, tell) for seats in sizes]


def as_markdown(sizes: Sequence[Size]) -> str:
    """The table of load/seats.md."""
    lines = [
        f"| seats | | one table | {PARTITIONS} partitions | cost x | least-most |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {size.seats:,} | {_row(result)} |" for size in sizes for result in size.results]
    return "\n".join(lines)


def _row(result: Result) -> str:
    if result.fault:
        return f"{result.name} | could not be measured: {result.fault} | | |"
    times, least, most = result.times
    plain, partitioned = statistics.median(result.floor_rates), statistics.median(result.rates)
    if result.name == _LOAD:
        shown = f"{_LOAD}, s | {1 / plain:.1f} | {1 / partitioned:.1f}"
    else:
        shown = f"{result.name}, /s | {plain:,.0f} | {partitioned:,.0f}"
    return f"{shown} | {times:.2f} | {least:.2f}-{most:.2f}"


def _measure_size(
    instance: Instance, seats: int, rounds: int, duration_s: float, keep: bool, tell: Callable[[str], None]
) -> Size:
    plain = _Database(instance, f"encore_seats_{seats}", seats, 0, tell)
    partitioned = _Database(instance, f"encore_seats_{seats}_in_{PARTITIONS}", seats, PARTITIONS, tell)
    try:
        results = []
        if not (plain.is_loaded() and partitioned.is_loaded()):
            case = Case(f"{seats:,} seats", _LOAD, "one table", partitioned.load_rate, plain.load_rate)
            results.append(measure(case, _LOADS, tell))
        anywhere = own_sql("seat_map_anywhere.sql") + read_text("booking.seats", "sql/seat_map.sql")
        for name, statement in (("hold_seats", own_sql("hold_seats.sql")), ("seat map", anywhere)):
            case = Case(
                f"{seats:,} seats",
                name,
                "one table",
                partitioned.pgbench_rate(statement, duration_s),
                plain.pgbench_rate(statement, duration_s),
            )
            measure(case, 1, lambda _: None)  # the first to come waits for the disk
            results.append(measure(case, rounds, tell))
        return Size(seats, results)
    finally:
        if not keep:
            tell(f"{seats:,} seats: dropping the databases")
            plain.drop()
            partitioned.drop()


class _Database:
    """A data set of so many seats, in so many partitions (0: one table)."""

    def __init__(self, instance: Instance, name: str, seats: int, partitions: int, tell: Callable[[str], None]) -> None:
        self._instance, self._name, self._partitions, self._tell = instance, name, partitions, tell
        self._primary = instance.postgres_primary
        schedules = seats // SEATS_PER_SCHEDULE
        self._counts = Counts(schedules // SCHEDULES_PER_CONCERT, schedules, seats)

    def is_loaded(self) -> bool:
        """Whether an earlier run has loaded it: that is one transaction."""
        found = self._as_superuser(f"select 1 from pg_database where datname = '{self._name}'", "postgres")
        return bool(found) and bool(self._as_superuser("select 1 where to_regclass('bench_seat') is not null"))

    def load_rate(self) -> float:
        """Makes it anew and fills it; how often a second that could be done, without making the tables."""
        for statement in _EMPTY:
            self._as_superuser(statement.format(self._name), "postgres")
        url = self._instance.database_url(self._primary).rpartition("/")[0] + f"/{self._name}"
        with _environment({"ENCORE_SEAT_PARTITIONS": str(self._partitions)}):
            migrate(url)
        started_s = time.monotonic()
        load(url, self._counts, lambda text: self._tell(f"{self._name}: {text}"))
        took_s = time.monotonic() - started_s
        self._tell(f"{self._name}: loaded in {took_s:.1f} s; vacuum and checkpoint, so that nothing is left for later")
        self._as_superuser("vacuum seat")
        self._as_superuser("checkpoint")
        with closing(connect(self._instance, self._primary, database=self._name)) as connection:
            connection.run(own_sql("partitions.sql").replace(":schedules", str(self._counts.schedules)))
        return 1 / took_s

    def pgbench_rate(self, statement: str, duration_s: float) -> Callable[[], float]:
        """Transactions a second of a statement, which may ask for the number of :schedules."""
        libpq = {
            "PGHOST": HOST,
            "PGPORT": str(self._instance.ports[self._primary]),
            "PGUSER": "encore",
            "PGPASSWORD": self._instance.secrets()["database_password"],
            "PGDATABASE": self._name,
        }
        variables: dict[str, str | int] = {"schedules": self._counts.schedules, **NOTHING_MARKED}
        return lambda: tools.pgbench(libpq, statement, CLIENTS, duration_s, variables)

    def drop(self) -> None:
        """It and its files."""
        self._as_superuser(_EMPTY[0].format(self._name), "postgres")

    def _as_superuser(self, statement: str, database: str = "") -> object:
        with closing(connect(self._instance, self._primary, "postgres", database or self._name)) as connection:
            return connection.run(statement)


def _check_disk(instance: Instance, seats: int) -> None:
    needed, free = 2 * seats * _BYTES_A_SEAT + _BYTES_BESIDE, shutil.disk_usage(instance.dir).free
    if free < needed:
        raise ToolError(
            f"{seats:,} seats with and without partitions need about {needed / 2**30:.0f} GiB in {instance.dir}, where"
            f" {free / 2**30:.0f} GiB are free; fewer with --seats"
        )


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
