"""What each step waits for, in the usual case and in those apart: counted, kept to its budget, published as a table.

The table is ``load/round-trips.md``. ``ENCORE_WRITE_TABLES=1`` writes it anew; else it has to be what is counted.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest

from booking.catalog import schedules
from booking.platform.postgres import primary
from encore_stack.instance import PROJECT_DIR
from support.client import Person
from support.gateways import SimulatedGateway
from support.redis import RedisStacks
from support.replica import wait_for_replica
from support.shop import Shop, new_key
from support.trips import CountTrips, Trips

_TABLE = PROJECT_DIR / "load" / "round-trips.md"
_REDIS_DATABASE = 1
_ONE, _THREE = "one Redis", "three"
_HEAD = """# Round trips

What a request waits for, one after the other: commands sent to Redis, statements sent to Postgres (each prepared, each
a transaction of its own, so one wait on the socket), requests sent to a payment firm. A request of a warm environment,
through the template's routes. Where the line, locks and cache are three servers (`--redis split`), unlocking the
seats and forgetting the map are two trips instead of one. `tests/integration/test_round_trips.py` keeps this true.

| step | request | Redis | Redis, three servers | SQL | firm | budget |
| --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Budget:
    """The most that a request may wait for in the usual case (design, section 7)."""

    redis: int
    sql: int = 0
    gateway: int = 0

    def __str__(self) -> str:
        parts = [(self.redis, "Redis"), (self.sql, "SQL"), (self.gateway, "firm")]
        return " + ".join(f"{most} {what}" for most, what in parts if most)

    def allows(self, trips: Trips) -> bool:
        return trips["redis"] <= self.redis and trips["sql"] <= self.sql and trips["gateway"] <= self.gateway


_JOIN, _READ, _RESERVE, _PAY = Budget(1), Budget(1), Budget(3, 1), Budget(3, 2, 1)
_BUDGETS: dict[tuple[str, str], Budget | None] = {
    ("1", "join"): _JOIN,
    ("1", "join again"): _JOIN,
    ("2", "position"): _JOIN,
    ("2", "leave"): None,
    ("3", "concerts"): None,
    ("3", "one concert"): None,
    ("4", "schedules, cached"): _READ,
    ("4", "schedules, not cached"): None,
    ("5", "seats, cached"): _READ,
    ("5", "seats, not cached"): None,
    ("6", "reserve seats by number"): _RESERVE,
    ("6", "the same key again"): _RESERVE,
    ("6", "refused, the seat is taken"): _RESERVE,
    ("6", "reserve the best seats"): _RESERVE,
    ("6", "show a reservation, with its story"): None,
    ("6", "give a hold back"): None,
    ("6", "give a paid reservation back"): None,
    ("7", "pay"): _PAY,
    ("7", "pay, which makes the hold longer"): _PAY,
    ("7", "pay, declined"): _PAY,
    ("7", "the same key again"): _PAY,
}


class Walk:
    """A person who walks all steps. What the first walk opens, loads and prepares is there for the second."""

    def __init__(self, http: httpx.Client, count: CountTrips, use_settings: Callable[..., object]) -> None:
        self.http, self.count, self.use_settings = http, count, use_settings
        self.shop = Shop.open(seats=40)
        self.counted: dict[tuple[str, str], Trips] = {}

    def waits(self, step: str, request: str, ask: Callable[[], httpx.Response], *statuses: int) -> httpx.Response:
        with self.count() as trips:
            answer = ask()
        assert answer.status_code in (statuses or (200, 201)), answer.text
        self.counted[step, request] = trips
        return answer

    def walk(self) -> dict[tuple[str, str], Trips]:
        """What each request waited for."""
        person, number = Person(self.http).join(self.shop.concert_id), self.shop.concert_id
        self.queue_and_catalogue(person, number)
        shown = f"schedules/{number}/seats"
        person.reserve(number, [1])
        wait_for_replica()  # one that lags costs a statement more: the primary's
        self.waits("5", "seats, not cached", lambda: self.http.get(shown, headers=person.with_pass))
        self.waits("5", "seats, cached", lambda: self.http.get(shown, headers=person.with_pass))
        self.reservations(Person(self.http).join(number), number)
        self.payments(number)
        return self.counted

    def queue_and_catalogue(self, person: Person, number: int) -> None:
        join = {"concert_id": number, "user_id": new_key()}
        self.waits("1", "join", lambda: self.http.post("queue/tokens", json=join))
        self.waits("1", "join again", lambda: self.http.post("queue/tokens", json=join))
        self.waits("2", "position", lambda: self.http.get("queue/tokens/current", headers=person.with_token))
        leaving = Person(self.http).join(number)
        self.waits("2", "leave", lambda: self.http.delete("queue/tokens/current", headers=leaving.with_token), 204)
        self.waits("3", "concerts", lambda: self.http.get("concerts"))
        self.waits("3", "one concert", lambda: self.http.get(f"concerts/{number}"))
        listed = f"concerts/{number}/schedules"
        self.waits("4", "schedules, not cached", lambda: self.http.get(listed))
        self.waits("4", "schedules, cached", lambda: self.http.get(listed))

    def reservations(self, person: Person, number: int) -> None:
        key = new_key()
        held = self.waits("6", "reserve seats by number", lambda: person.reserve(number, [2, 3], key)).json()
        self.waits("6", "the same key again", lambda: person.reserve(number, [2, 3], key))
        rival = Person(self.http).join(number)
        self.waits("6", "refused, the seat is taken", lambda: rival.reserve(number, [3]), 409)
        self.waits("6", "reserve the best seats", lambda: person.ask(number, {"best": 2}))
        path = f"reservations/{held['reservation_id']}"
        self.waits("6", "show a reservation, with its story", lambda: person.show(held["reservation_id"]))
        self.waits("6", "give a hold back", lambda: self.http.delete(path, headers=person.with_pass))

    def payments(self, number: int) -> None:
        person = Person(self.http).join(number)
        with self.use_settings(hold_ttl_s=30):  # type: ignore[attr-defined]
            short = person.reserve(number, [20]).json()["reservation_id"]
        self.waits("7", "pay, which makes the hold longer", lambda: person.pay(short))
        path = f"reservations/{short}"
        self.waits("6", "give a paid reservation back", lambda: self.http.delete(path, headers=person.with_token))
        person = Person(self.http).join(number)
        usual, key = person.reserve(number, [21]).json()["reservation_id"], new_key()
        self.waits("7", "pay, declined", lambda: person.pay(usual, "card_declined"), 402)
        self.waits("7", "pay", lambda: person.pay(usual, key=key))
        self.waits("7", "the same key again", lambda: person.pay(usual, key=key))


def rows_of(one: dict[tuple[str, str], Trips], three: dict[tuple[str, str], Trips]) -> str:
    """The table's lines, in the order of the steps."""
    return "".join(
        f"| {step} | {request} | {one[step, request]['redis']} | {three[step, request]['redis']} "
        f"| {one[step, request]['sql']} | {one[step, request]['gateway']} | {budget or '–'} |\n"
        for (step, request), budget in _BUDGETS.items()
    )


def test_each_request_keeps_to_its_round_trips_and_the_table_says_so(
    http: httpx.Client,
    danal: SimulatedGateway,
    count_trips: CountTrips,
    use_settings: Callable[..., object],
    redis_stacks: RedisStacks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedules, "SEATS_LEFT_KEPT_MS", 60_000)  # the second look finds them, however slow the machine

    def counted() -> dict[tuple[str, str], Trips]:
        Walk(
            http, count_trips, use_settings
        ).walk()  # opens the connections, loads the scripts, prepares the statements
        return Walk(http, count_trips, use_settings).walk()

    one = counted()
    urls = redis_stacks.get("split").instance.redis_urls(_REDIS_DATABASE)
    use_settings(**{f"{name}_redis_url": url for name, url in urls.items()})
    three = counted()

    for counts in (one, three):
        assert counts.keys() == _BUDGETS.keys()
        for name, trips in counts.items():
            budget = _BUDGETS[name]
            assert budget is None or budget.allows(trips), f"{name} has {dict(trips)}, its budget is {budget}"
            assert trips.sql_waits == trips["sql"], (
                f"{name} waits {trips.sql_waits} times for {trips['sql']} statements"
            )
    table = _HEAD + rows_of(one, three)
    if os.environ.get("ENCORE_WRITE_TABLES"):
        _TABLE.write_text(table)
    print(table)
    assert _TABLE.read_text() == table, "ENCORE_WRITE_TABLES=1 writes load/round-trips.md anew"


def test_a_statement_that_is_not_prepared_yet_waits_longer(count_trips: CountTrips) -> None:
    """The count is of waits, not of calls: it would notice a statement that is prepared each time."""
    primary().close()
    primary().rows("select 0")
    with count_trips() as first:
        primary().rows("select 1")
    with count_trips() as second:
        primary().rows("select 1")

    assert (first["sql"], second["sql"]) == (1, 1)
    assert first.sql_waits > second.sql_waits == 1
