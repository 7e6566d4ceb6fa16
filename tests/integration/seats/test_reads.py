"""The operator's switch: the hot reads of one concert go to the database and back, for everybody at once."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pg8000.exceptions import DatabaseError

from booking import seats
from booking.catalog import schedules
from booking.catalog.concerts import ConcertUnknown
from booking.platform.postgres import Server, primary, replica
from booking.platform.redis import redis
from booking.platform.redis_keys import schedules_keys, seat_map_keys
from booking.seats import reads, seat_map
from booking.seats.holds import sweep
from booking.seats.reads import UnusableReadsCommand, change_reads, repeat_reads, show_reads
from support.replica import wait_for_replica
from support.shop import Shop

_AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hot reads that Postgres was asked for, in order: "map replica", "map primary", "list replica", ..."""
    asked: list[str] = []
    names = {seat_map._SEAT_MAP: "map", schedules._SCHEDULES: "list", schedules._SEATS_LEFT: "numbers"}
    run = Server._run

    def noting(server: Server, sql: str, parameters: dict[str, Any]) -> Any:
        if sql in names:
            asked.append(f"{names[sql]} {'replica' if server is replica() else 'primary'}")
        return run(server, sql, parameters)

    monkeypatch.setattr(Server, "_run", noting)
    return asked


@pytest.fixture(autouse=True)
def switched_back(shop: Shop) -> Iterator[None]:
    """No other test's sweeper tells the readers of this concert again."""
    yield
    primary().rows("alter table reads_change disable trigger append_only")
    primary().rows("delete from reads_change where concert_id = :id", id=shop.concert_id)
    primary().rows("alter table reads_change enable trigger append_only")


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seats left are cached until a test forgets them, however slow the machine is."""
    monkeypatch.setattr(schedules, "SEATS_LEFT_KEPT_MS", 60_000)


def look(shop: Shop) -> tuple[str, int]:
    """Seat 1 and the seats left, as steps 5 and 4 show them."""
    [schedule] = json.loads(schedules.list_schedules(shop.concert_id))["schedules"]
    return shop.map_state(1), schedule["seats_left"]


def switch(shop: Shop, source: str) -> None:
    assert change_reads(shop.concert_id, source, by="a test").in_force
    wait_for_replica()


def cached(shop: Shop) -> list[str]:
    """What of the concert is in the cache: "map", "schedules", "seats_left"."""
    keys = [seat_map_keys(shop.concert_id)[0], *schedules_keys(shop.concert_id)[:2]]
    found = {key.rpartition(":")[2]: redis("cache").get(key) for key in keys}
    return [name for name, value in found.items() if value not in (None, b"-")]


def forget_all(shop: Shop) -> None:
    """Redis is wiped."""
    redis("cache").delete(*seat_map_keys(shop.concert_id))
    redis("cache").delete(*schedules_keys(shop.concert_id))


def change_silently(shop: Shop) -> None:
    """What no cache hears of: it lets the tests see which one answered."""
    primary().rows("update seat set price = price + 1 where schedule_id = :id", id=shop.concert_id)
    primary().rows("update schedule_sales set seats_sold = 4 where schedule_id = :id", id=shop.concert_id)
    wait_for_replica()


def test_the_database_answers_while_it_is_told_to_and_nothing_is_kept(shop: Shop, answers: list[str]) -> None:
    look(shop)
    assert cached(shop) == ["map", "schedules", "seats_left"]

    switch(shop, "database")
    assert cached(shop) == []
    answers.clear()
    for _ in range(2):
        look(shop)
    assert answers == ["list replica", "map replica"] * 2
    assert cached(shop) == []

    switch(shop, "cache")
    look(shop)
    assert cached(shop) == ["map", "schedules", "seats_left"]
    answers.clear()
    look(shop)
    assert answers == []


def test_what_nobody_told_is_seen_at_once_past_the_cache(shop: Shop) -> None:
    assert look(shop) == ("available", 10)
    switch(shop, "database")
    assert look(shop)[1] == 10

    change_silently(shop)

    assert look(shop)[1] == 6
    assert json.loads(seats.show_seat_map(shop.concert_id, shop.concert_id).body)["seats"][0]["price"] == 1_001


def test_changes_are_seen_at_once_on_every_way(shop: Shop) -> None:
    for source in ("database", "cache", "database", "cache"):
        switch(shop, source)
        held = shop.hold([1])
        assert look(shop)[0] == "held"
        seats.release_hold(held["reservation_id"], shop.shopper().person)
        assert look(shop)[0] == "available"


def test_to_the_cache_again_forgets_what_is_cached(shop: Shop) -> None:
    assert look(shop) == ("available", 10)
    change_silently(shop)
    assert look(shop) == ("available", 10)

    switch(shop, "cache")

    assert look(shop) == ("available", 6)


@pytest.mark.parametrize("to", ["database", "cache"])
def test_who_reads_while_it_is_switched_keeps_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    read_map, read_list = seat_map.read_seat_map, schedules.read_schedules

    def map_overtaken(*asked: Any) -> Any:
        found = read_map(*asked)
        switch(shop, to)
        return found

    def list_overtaken(concert_id: int) -> Any:
        found = read_list(concert_id)
        switch(shop, to)
        return found

    monkeypatch.setattr(seat_map, "read_seat_map", map_overtaken)
    monkeypatch.setattr(schedules, "read_schedules", list_overtaken)
    look(shop)

    assert cached(shop) == []


def test_a_redis_that_forgets_hears_it_from_postgres(shop: Shop, answers: list[str]) -> None:
    switch(shop, "database")
    forget_all(shop)

    for _ in range(2):
        look(shop)
        assert cached(shop) == []
    assert answers == ["list primary", "map primary", "list replica", "map replica"]
    assert show_reads(shop.concert_id)["told"] == {"maps": 1, "list": True}


@pytest.mark.parametrize("source", ["database", "cache"])
def test_the_sweeper_tells_a_redis_that_was_away(shop: Shop, use_settings: Callable[..., Any], source: str) -> None:
    switch(shop, "cache" if source == "database" else "database")
    look(shop)
    with use_settings(cache_redis_url=_AWAY):
        assert not change_reads(shop.concert_id, source, by="a test").in_force
        assert show_reads(shop.concert_id)["told"] is None
    wait_for_replica()

    assert sweep() >= 1

    look(shop)
    assert cached(shop) == ([] if source == "database" else ["map", "schedules", "seats_left"])


def test_saying_it_again_forgets_nothing(shop: Shop) -> None:
    switch(shop, "cache")
    look(shop)

    assert repeat_reads() >= 1

    assert cached(shop) == ["map", "schedules", "seats_left"]


def test_a_change_of_long_ago_is_repeated_only_if_it_is_not_the_usual(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "_REPEATED_S", -1)
    switch(shop, "database")
    forget_all(shop)
    repeat_reads()
    assert show_reads(shop.concert_id)["told"] == {"maps": 1, "list": True}

    switch(shop, "cache")
    forget_all(shop)
    redis("cache").set(schedules_keys(shop.concert_id)[0], "-", px=1_000)
    repeat_reads()
    assert show_reads(shop.concert_id)["told"] == {"maps": 0, "list": True}


def test_the_history_says_who_and_why(shop: Shop) -> None:
    assert show_reads(shop.concert_id) == {
        "concert_id": shop.concert_id, "title": "Test", "source": "cache", "schedules": 1, "changes": [],
        "told": {"maps": 0, "list": False},
    }  # fmt: skip

    change_reads(shop.concert_id, "database", by="somebody", reason="the cache is suspected")
    change_reads(shop.concert_id, "cache", by="somebody else")

    shown = show_reads(shop.concert_id)
    assert [(change["source"], change["by"], change["reason"]) for change in shown["changes"]] == [
        ("cache", "somebody else", "cache"),
        ("database", "somebody", "the cache is suspected"),
    ]
    with pytest.raises(DatabaseError, match="append-only"):
        primary().rows("delete from reads_change where concert_id = :id", id=shop.concert_id)


def test_another_concert_reads_as_before(shop: Shop) -> None:
    other = Shop.open()
    look(other)

    switch(shop, "database")
    look(other)

    assert cached(other) == ["map", "schedules", "seats_left"]


def test_what_cannot_be_done_is_told(shop: Shop) -> None:
    with pytest.raises(UnusableReadsCommand, match="cache or database"):
        change_reads(shop.concert_id, "memory", by="a test")
    with pytest.raises(UnusableReadsCommand, match="500"):
        change_reads(shop.concert_id, "cache", by="a test", reason="x" * 501)
    with pytest.raises(ConcertUnknown):
        change_reads(2**62, "cache", by="a test")
    with pytest.raises(ConcertUnknown):
        show_reads(2**62)
    assert show_reads(shop.concert_id)["changes"] == []
