"""Step 4's cache: one Redis command a read, the list until the venue's midnight, the seats left for two seconds."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pg8000.exceptions import DatabaseError
from redis.connection import Connection

from booking.catalog import schedules
from booking.catalog.schedules import SEATS_LEFT_KEPT_MS
from booking.platform import single_flight
from booking.platform.postgres import Server, primary, replica
from booking.platform.redis import Script, redis, run_together
from booking.platform.redis_keys import schedules_keys
from booking.platform.resources import read_text
from encore_stack.instance import Instance
from support.client import assert_problem
from support.redis import TOPOLOGIES
from support.replica import replay_of, wait_for_replica
from support.shop import Shop

_STILL_ITS_OWN = """if redis.call('GET', KEYS[3]) ~= ARGV[1] then
    return 0
end
"""

NEW_TIME = "2031-05-01T19:00:00.000Z"

every_topology = pytest.mark.parametrize("redis_topology", TOPOLOGIES)


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seats left are cached until a test forgets them, however slow the machine is."""
    monkeypatch.setattr(schedules, "SEATS_LEFT_KEPT_MS", 60_000)


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Waits for another server, by kind: "redis", and the SQL files' names."""
    counted: Counter[str] = Counter()
    statements = {schedules._SCHEDULES: "schedules.sql", schedules._SEATS_LEFT: "seats_left.sql"}
    send, run = Connection.send_packed_command, Server._run

    def sent(connection: Connection, *words: Any, **options: Any) -> Any:
        counted["redis"] += 1
        return send(connection, *words, **options)  # type: ignore[no-untyped-call]

    def ran(server: Server, sql: str, parameters: dict[str, Any]) -> Any:
        counted[statements.get(sql, "other.sql")] += 1
        return run(server, sql, parameters)

    monkeypatch.setattr(Connection, "send_packed_command", sent)
    monkeypatch.setattr(Server, "_run", ran)
    return counted


def look(shop: Shop) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(schedules.list_schedules(shop.concert_id))["schedules"]
    return found


def seats_left(shop: Shop) -> list[int]:
    return [schedule["seats_left"] for schedule in look(shop)]


def sell(shop: Shop, seats: int) -> None:
    """The consumer counts so many sold."""
    primary().rows(
        "update schedule_sales set seats_sold = cast(:seats as integer) where schedule_id = :id",
        seats=seats,
        id=shop.concert_id,
    )
    wait_for_replica()


def move(shop: Shop, starts_at: str, *, wait: bool = True) -> None:
    """The organizer moves the concert's one schedule. ``wait``: until the replica knows."""
    primary().rows(
        "update schedule set starts_at = cast(:starts_at as timestamptz) where id = :id",
        starts_at=starts_at,
        id=shop.concert_id,
    )
    if wait:
        wait_for_replica()


def add_schedule(shop: Shop, schedule_id: int, counted: bool = True) -> None:
    primary().rows(
        "insert into schedule (id, concert_id, starts_at) values (:id, :concert_id, now() + interval '3 hours')",
        id=schedule_id,
        concert_id=shop.concert_id,
    )
    if counted:
        primary().rows(
            "insert into schedule_sales (schedule_id, concert_id, seats_total) values (:id, :concert_id, 5)",
            id=schedule_id,
            concert_id=shop.concert_id,
        )
    wait_for_replica()


def expire(shop: Shop, name: str = "seats_left") -> None:
    redis("cache").delete(key(shop, name))


def key(shop: Shop, name: str) -> str:
    return f"catalog:{{c{shop.concert_id}}}:{name}"


def kept_ms(shop: Shop, name: str) -> int:
    """How long it is still kept, negative when it is not."""
    return int(redis("cache").pttl(key(shop, name)))


# --- what it costs -------------------------------------------------------------------------------------------------


@every_topology
def test_a_hit_is_one_redis_command_and_no_sql(shop: Shop, http: httpx.Client, trips: Counter[str]) -> None:
    path = f"concerts/{shop.concert_id}/schedules"
    first = http.get(path)
    trips.clear()

    hit = http.get(path)
    not_modified = http.get(path, headers={"If-None-Match": first.headers["etag"]})

    assert trips == {"redis": 2}
    assert (hit.content, hit.headers["etag"]) == (first.content, first.headers["etag"])
    assert hit.headers["cache-control"] == "public, max-age=2"
    assert (not_modified.status_code, not_modified.content) == (304, b"")


def test_a_miss_is_one_statement_of_what_is_missing(shop: Shop, trips: Counter[str]) -> None:
    other = Shop.open()
    look(other)  # opens the connections, loads the scripts
    expire(other)
    look(other)
    trips.clear()

    look(shop)
    assert trips == {"redis": 3, "schedules.sql": 1}

    expire(shop)
    trips.clear()
    look(shop)
    assert trips == {"redis": 3, "seats_left.sql": 1}

    expire(shop, "schedules")
    trips.clear()
    look(shop)
    assert trips == {"redis": 3, "schedules.sql": 1}


def crowd(shop: Shop, people: int, trips: Counter[str]) -> int:
    """How often so many readers of cold schedules ask Postgres."""
    started = threading.Barrier(people)

    def reader(_: int) -> str:
        redis("cache").exists("anything")  # warm environments, each with a connection of its own
        started.wait()
        return schedules.list_schedules(shop.concert_id)

    trips.clear()
    with ThreadPoolExecutor(people) as readers:
        assert len(set(readers.map(reader, range(people)))) == 1
    return trips["schedules.sql"] + trips["seats_left.sql"]


@pytest.mark.race
def test_two_hundred_readers_of_cold_schedules_ask_the_database_once(shop: Shop, trips: Counter[str]) -> None:
    assert crowd(shop, 200, trips) == 1

    expire(shop)
    assert crowd(shop, 50, trips) == 1


@every_topology
def test_who_has_waited_in_vain_for_a_reader_that_died_fills_the_cache_for_the_rest(
    shop: Shop, trips: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_flight, "_WAIT_S_MAX", 0.05)
    redis("cache").set(key(shop, "reader"), "somebody who died", px=60_000)

    for _ in range(2):
        assert seats_left(shop) == [10]
    assert trips["schedules.sql"] == 1


# --- how long it is kept -------------------------------------------------------------------------------------------


def test_seats_left_are_kept_for_two_seconds(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "SEATS_LEFT_KEPT_MS", SEATS_LEFT_KEPT_MS)
    look(shop)

    assert 0 < kept_ms(shop, "seats_left") <= 2_000


def test_seats_left_are_read_again_when_their_time_is_over(shop: Shop) -> None:
    assert seats_left(shop) == [10]
    sell(shop, 3)
    assert seats_left(shop) == [10]

    expire(shop)

    assert seats_left(shop) == [7]


@pytest.mark.parametrize("zone", ["Asia/Seoul", "America/New_York", "Pacific/Kiritimati", "Asia/Kathmandu"])
def test_the_list_is_kept_until_midnight_of_the_venue(shop: Shop, zone: str) -> None:
    [[left_ms]] = primary().rows(
        "with venue as (update concert set timezone = :zone where id = :id"
        " returning now() at time zone timezone as now)"
        " select cast(extract(epoch from date_trunc('day', now) + interval '1 day' - now) * 1000 as bigint) from venue",
        zone=zone,
        id=shop.concert_id,
    )
    wait_for_replica()

    look(shop)

    an_hour_ms = 3_600_000  # the day may end with an hour more or less than its clock shows
    assert left_ms - an_hour_ms - 2_000 < kept_ms(shop, "schedules") <= left_ms + an_hour_ms


@pytest.mark.parametrize(
    ("now", "zone", "midnight"),
    [
        ("2026-11-25T03:00:00Z", "Asia/Seoul", "2026-11-25T15:00:00Z"),
        ("2026-11-25T14:59:59.999Z", "Asia/Seoul", "2026-11-25T15:00:00Z"),
        ("2026-11-25T15:00:00Z", "Asia/Seoul", "2026-11-26T15:00:00Z"),
        ("2026-11-25T03:00:00Z", "America/New_York", "2026-11-25T05:00:00Z"),
        # The clocks go forward at two: 23 hours; and back: 25.
        ("2026-03-08T05:00:00Z", "America/New_York", "2026-03-09T04:00:00Z"),
        ("2026-11-01T04:00:00Z", "America/New_York", "2026-11-02T05:00:00Z"),
        ("2026-03-29T12:00:00Z", "Europe/Paris", "2026-03-29T22:00:00Z"),
        # In Havana they go forward at midnight: the day begins at one.
        ("2026-03-07T12:00:00Z", "America/Havana", "2026-03-08T05:00:00Z"),
        ("2026-11-25T00:00:00Z", "Asia/Kathmandu", "2026-11-25T18:15:00Z"),
    ],
)
def test_midnight_is_the_calendars(now: str, zone: str, midnight: str) -> None:
    found = primary().value("select midnight_after(cast(:now as timestamptz), :zone)", now=now, zone=zone)

    assert found == datetime.fromisoformat(midnight)


def test_at_midnight_of_the_venue_the_list_is_read_again(shop: Shop) -> None:
    now = primary().value("select clock_timestamp()")
    midnight = now.replace(microsecond=0) + timedelta(seconds=2)
    west_of_utc = timedelta(hours=midnight.hour, minutes=midnight.minute, seconds=midnight.second)
    primary().rows(
        "update concert set timezone = :zone where id = :id", zone=f"<venue>{west_of_utc}", id=shop.concert_id
    )
    wait_for_replica()
    [before] = look(shop)
    move(shop, NEW_TIME)
    assert look(shop) == [before]

    primary().rows("select pg_sleep(extract(epoch from cast(:at as timestamptz) - clock_timestamp()))", at=midnight)
    while kept_ms(shop, "schedules") >= 0:
        pass  # a moment: the cache's clock goes by itself

    [after] = look(shop)
    assert after["starts_at"] == NEW_TIME
    assert datetime.now(UTC) - midnight < timedelta(seconds=1)


def test_a_time_zone_that_does_not_exist_is_refused(shop: Shop) -> None:
    with pytest.raises(DatabaseError, match="not recognized"):
        primary().rows("update concert set timezone = 'Asia/Soul' where id = :id", id=shop.concert_id)


def test_a_new_schedule_is_shown_with_the_next_numbers(shop: Shop, trips: Counter[str]) -> None:
    look(shop)
    add_schedule(shop, shop.concert_id + 500_000)
    expire(shop)
    trips.clear()

    assert seats_left(shop) == [10, 5]
    assert seats_left(shop) == [10, 5]
    assert trips["seats_left.sql"] == trips["schedules.sql"] == 1


def test_a_schedule_without_counters_has_no_numbers(shop: Shop) -> None:
    add_schedule(shop, shop.concert_id + 500_000, counted=False)

    for _ in range(2):
        assert [(each["seats_total"], each["seats_left"]) for each in look(shop)] == [(10, 10), (None, None)]


def test_a_concert_without_schedules_has_an_empty_list(shop: Shop) -> None:
    primary().rows("delete from schedule where concert_id = :id", id=shop.concert_id)
    wait_for_replica()

    for _ in range(2):
        assert look(shop) == []


def test_numbers_are_never_put_to_another_list(shop: Shop, trips: Counter[str]) -> None:
    look(shop)
    redis("cache").set(key(shop, "seats_left"), f"{shop.concert_id + 1} 7,7", px=60_000)
    trips.clear()

    assert seats_left(shop) == [10]
    assert trips["schedules.sql"] == 1


def test_an_unknown_concert_is_not_kept_and_keeps_nobody_waiting(http: httpx.Client, trips: Counter[str]) -> None:
    unknown = 2**62
    for _ in range(2):
        trips.clear()
        assert_problem(http.get(f"concerts/{unknown}/schedules"), 404, "concert-unknown")
        assert trips["schedules.sql"] == 1
        assert redis("cache").exists(*schedules_keys(unknown)) == 0


# --- forgetting ----------------------------------------------------------------------------------------------------


def forgotten_while_somebody_reads(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> str:
    """A reader has read the old list when the organizer changes it and has it forgotten."""
    read = schedules.read_schedules

    def slowly(concert_id: int) -> Any:
        found = read(concert_id)
        monkeypatch.setattr(schedules, "read_schedules", read)
        move(shop, NEW_TIME)
        run_together([schedules.call_of_switch(concert_id, past_cache=past_cache) for past_cache in (True, False)])
        return found

    monkeypatch.setattr(schedules, "read_schedules", slowly)
    look(shop)
    return str(look(shop)[0]["starts_at"])


@every_topology
def test_what_was_read_before_it_was_forgotten_is_not_stored(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert forgotten_while_somebody_reads(shop, monkeypatch) == NEW_TIME


def test_without_the_check_of_the_lock_the_old_list_stays_until_midnight(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = read_text("booking.catalog", "lua/keep_schedules.lua")
    assert _STILL_ITS_OWN in source, "the guard is no longer written like this: mend this negative control"
    monkeypatch.setattr(schedules, "_KEEP", Script(source.replace(_STILL_ITS_OWN, "")))

    assert forgotten_while_somebody_reads(shop, monkeypatch) != NEW_TIME


def test_what_is_kept_until_midnight_is_not_from_a_replica_that_lags(shop: Shop, instance: Instance) -> None:
    look(shop)
    with replay_of(instance) as replay:
        replay.pause()
        move(shop, NEW_TIME, wait=False)
        run_together([schedules.call_of_switch(shop.concert_id, past_cache=past_cache) for past_cache in (True, False)])
        look(shop)

    assert look(shop)[0]["starts_at"] == NEW_TIME


# --- what is away --------------------------------------------------------------------------------------------------


def test_without_redis_the_database_answers(shop: Shop, use_settings: Callable[..., None]) -> None:
    use_settings(cache_redis_url="redis://127.0.0.1:1/0")
    sell(shop, 4)

    assert seats_left(shop) == [6]


def test_without_the_replica_the_primary_answers(shop: Shop, use_settings: Callable[..., None]) -> None:
    use_settings(replica_url="postgresql://encore@127.0.0.1:1/encore")

    assert seats_left(shop) == [10]
    expire(shop)
    assert seats_left(shop) == [10]


def test_without_the_primary_the_replica_answers_and_the_list_is_kept_no_longer_than_the_numbers(
    shop: Shop, use_settings: Callable[..., None]
) -> None:
    use_settings(database_url="postgresql://encore@127.0.0.1:1/encore")

    assert seats_left(shop) == [10]
    assert 0 < kept_ms(shop, "schedules") <= 60_000


def test_redis_going_away_between_looking_and_storing_costs_nobody_the_answer(
    shop: Shop, use_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = schedules.read_schedules

    def then_away(concert_id: int) -> Any:
        use_settings(cache_redis_url="redis://127.0.0.1:1/0")
        return read(concert_id)

    monkeypatch.setattr(schedules, "read_schedules", then_away)

    assert seats_left(shop) == [10]


def test_the_primary_answers_for_the_list_and_the_replica_for_the_numbers(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Server] = []
    run = Server._run

    def noting(server: Server, sql: str, parameters: dict[str, Any]) -> Any:
        asked.append(server)
        return run(server, sql, parameters)

    monkeypatch.setattr(Server, "_run", noting)
    look(shop)
    expire(shop)
    look(shop)

    assert asked == [primary(), replica()]
