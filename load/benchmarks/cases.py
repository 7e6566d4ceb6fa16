"""Every case: the seven steps in one process, over HTTP and through LocalStack; the main SQL and Lua statements."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from urllib.parse import urlsplit

from benchmarks import cpu, tools
from benchmarks.gateway import StepsAndFloors
from benchmarks.measure import Case
from benchmarks.requests import FLOORS, STEPS, MakeRequests, Request, get
from benchmarks.stage import FLOOR_DATABASE, LINE_CONCERT_ID, SHOP_CONCERT_ID, SHOP_SCHEDULE_ID, SQL, Stage
from booking.platform.redis import Lua, Script, redis
from booking.platform.redis_keys import line_keys, seat_lock_key
from booking.platform.resources import read_text
from booking.queue import person_of
from booking.queue.line import common_arguments, join_line
from booking.queue.scripts import script
from booking.queue.tokens import read_token
from booking.seats import locks

GROUPS = ("localstack", "cpu", "lua", "sql", "http")
"""In the order in which they are measured: those that fill the database come last."""

CONNECTIONS = 32
CLIENTS = 16
LOCALSTACK_CONNECTIONS = 8
_LOCALSTACK_REQUESTS_PER_S_MAX = 2_000
_PAYMENTS_PER_S_MAX = 3_000

_STEP_FLOORS = {
    "step1_join_queue": ("redis-lua", 2.0),
    "step2_queue_position": ("redis-lua", None),
    "step3_concerts": ("empty", None),
    "step4_schedules": ("redis-get", None),
    "step5_seats": ("redis-get", 2.0),
    "step6_reserve": ("empty", None),
    "step7_pay": ("empty", None),
}
_ONCE = {"step1_join_queue": 30_000, "step6_reserve": 2_500, "step7_pay": 1_000}
"""Steps of which each request is sent once, and how many may be needed a second; wrk's threads have half each."""
NOTHING_MARKED = {"numbers": "{}", "versions": "{}", "all_versions": "true"}
"""What the statement of the seat map is asked besides the schedule, by who fills an empty cache from the primary."""
_SQL_FLOORS = ("step6_reserve", "step7_pay")
"""Steps whose floor over HTTP is the same SQL called by pgbench. 40 % of its rate is 2.5 times its cost."""


def cpu_cases(stage: Stage, calls: int) -> Iterator[Case]:
    """CPU of a request in one process: what the handler itself costs, servers left out."""
    application = StepsAndFloors()
    sources = {name: _Requests(stage, name, make, calls) for name, make in (FLOORS | STEPS).items()}

    def rate(name: str) -> Callable[[], float]:
        return lambda: 1e6 / cpu.cost_us(application, sources[name].take(), calls)

    for step, (floor, _) in _STEP_FLOORS.items():
        yield Case("cpu", step, f"{floor} route", rate(step), rate(floor))


def http_cases(stage: Stage, base_url: str, duration_s: float) -> Iterator[Case]:
    """Requests a second through the fast gateway."""

    def rate(name: str, connections: int) -> Callable[[], float]:
        source = _Requests(stage, name, (FLOORS | STEPS)[name], round(duration_s * _ONCE.get(name, 1)))
        return wrk_rate(base_url, source, connections, duration_s)

    for step, (floor, times_max) in _STEP_FLOORS.items():
        if step not in _SQL_FLOORS:
            yield Case("http", step, f"{floor} route", rate(step, CONNECTIONS), rate(floor, CONNECTIONS), times_max)
    hold, pay = hold_rate(stage, duration_s), pay_rate(stage, duration_s)
    yield Case("http", "step6_reserve", f"pgbench, {CLIENTS} clients", rate("step6_reserve", CLIENTS), hold, 2.5)
    yield Case("http", "step7_pay", f"pgbench, {CLIENTS} clients", rate("step7_pay", CLIENTS), pay)


def localstack_cases(stage: Stage, base_url: str, empty_url: str, duration_s: float) -> Iterator[Case]:
    """Requests a second through LocalStack's API Gateway, beside an empty function's there."""

    def rate(url: str, name: str, make: MakeRequests, connections: int) -> Callable[[], float]:
        source = _Requests(stage, name, make, round(duration_s * _LOCALSTACK_REQUESTS_PER_S_MAX))
        return wrk_rate(url, source, connections, duration_s)

    def empty(connections: int) -> Callable[[], float]:
        return rate(empty_url, "empty", get(""), connections)

    for connections in (1, LOCALSTACK_CONNECTIONS):
        name = f"empty function, {connections} connection{'s' * (connections > 1)}"
        yield Case("localstack", name, "itself, 8 connections", empty(connections), empty(LOCALSTACK_CONNECTIONS))
    for step, make in STEPS.items():
        measured = rate(base_url, step, make, LOCALSTACK_CONNECTIONS)
        with suppress(tools.ToolError):  # a function's first environments start while its first requests wait
            measured()
        yield Case("localstack", step, "empty function", measured, empty(LOCALSTACK_CONNECTIONS))


def sql_cases(stage: Stage, duration_s: float) -> Iterator[Case]:
    """Transactions a second of the main statements by pgbench, beside one trip or one durable row."""
    one_trip = pgbench_rate(stage, own_sql("select_one.sql"), duration_s)
    one_row = pgbench_rate(stage, own_sql("insert_row.sql"), duration_s)
    reads: Sequence[tuple[str, str, Mapping[str, str | int]]] = (
        ("booking.catalog", "concerts.sql", {"after": 0, "limit": 21}),
        ("booking.catalog", "schedules.sql", {"concert_id": SHOP_CONCERT_ID}),
        ("booking.catalog", "seats_left.sql", {"concert_id": SHOP_CONCERT_ID}),
        ("booking.seats", "seat_map.sql", {"schedule_id": SHOP_SCHEDULE_ID, **NOTHING_MARKED}),
    )
    for package, file, variables in reads:
        statement = read_text(package, f"sql/{file}")
        yield Case("sql", file, "select 1", pgbench_rate(stage, statement, duration_s, variables), one_trip)
    yield Case("sql", "hold_seats", "insert one row", hold_rate(stage, duration_s), one_row)
    yield Case("sql", "begin_payment, settle_payment", "insert one row", pay_rate(stage, duration_s), one_row)


def lua_cases(stage: Stage, calls: int) -> Iterator[Case]:
    """Script calls a second by redis-benchmark, beside a script that reads one key."""
    client, port = redis("queue"), stage.instance.ports["redis"]
    waiting = join_line(LINE_CONCERT_ID, person_of(stage.new_user_ids(1)[0]))
    token = read_token(waiting.token)
    line = [*line_keys(LINE_CONCERT_ID), *common_arguments(LINE_CONCERT_ID)]
    seat = [seat_lock_key(SHOP_SCHEDULE_ID, name) for name in ("count", "held:__rand_int__", "__rand_int__")]

    def rate(lua: Lua, keys: int, words: Sequence[str | float]) -> Callable[[], float]:
        lua.load(client, str(words[0]))
        return lambda: tools.redis_benchmark(port, CLIENTS, calls, [lua.command, lua.name, keys, *words])

    floor = rate(Script("return redis.call('GET', KEYS[1])"), 1, ["bench:none"])
    measured = {
        "join.lua": rate(script("join"), 10, [*line, "b__rand_int__", 0.5]),
        "position.lua": rate(script("position"), 10, [*line, token.person, 0.5, token.place, token.epoch]),
        "lock_seats.lua": rate(locks.LIBRARY.functions()["lock_seats"], 3, [*seat, "b__rand_int__", 3_000]),
    }
    for name, calls_a_second in measured.items():
        yield Case("lua", name, "one GET in a script", calls_a_second, floor)


def wrk_rate(url: str, source: "_Requests", connections: int, duration_s: float) -> Callable[[], float]:
    """Requests a second below ``url`` over so many connections."""
    prefix = urlsplit(url).path
    return lambda: tools.wrk(url, source.raw(prefix), connections, duration_s, once=source.once)


def hold_rate(stage: Stage, duration_s: float) -> Callable[[], float]:
    """Step 6's SQL by pgbench: holds a second, each of a seat of its own."""
    return pgbench_rate(stage, own_sql("hold_seats.sql"), duration_s)


def pay_rate(stage: Stage, duration_s: float) -> Callable[[], float]:
    """Step 7's two statements by pgbench: payments a second."""
    paid = pgbench_rate(stage, own_sql("pay.sql"), duration_s)

    def rate() -> float:
        stage.hold(round(duration_s * _PAYMENTS_PER_S_MAX), FLOOR_DATABASE)
        return paid()

    return rate


def pgbench_rate(
    stage: Stage, statement: str, duration_s: float, variables: Mapping[str, str | int] | None = None
) -> Callable[[], float]:
    """Transactions a second of a statement at 16 clients."""
    libpq = stage.libpq_environment()
    return lambda: tools.pgbench(libpq, statement, CLIENTS, duration_s, variables)


def own_sql(name: str) -> str:
    """A file of ``sql/`` here."""
    return SQL.joinpath(name).read_text()


class _Requests:
    """The requests of one step or floor; those that count once are made anew for each measurement."""

    def __init__(self, stage: Stage, name: str, make: MakeRequests, count: int) -> None:
        self._stage, self._make_requests, self._count = stage, make, count
        self.once = name in _ONCE
        self._kept = None if self.once else self._make()

    def _make(self) -> list[Request]:
        return self._make_requests(self._stage, self._count)

    def take(self) -> Iterator[Request]:
        """An endless supply."""
        return cycle(self._kept or self._make())

    def raw(self, prefix: str = "") -> list[bytes]:
        """All of them as they go over the wire."""
        return [request.raw(prefix) for request in self._kept or self._make()]
