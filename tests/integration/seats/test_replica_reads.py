"""A replica answers only for what it has replayed: a map is never staler than what its reader was told.

Each rule has its negative control: taken out, the same story ends with a stale map.
"""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from typing import Any

import httpx
import pytest
from pg8000.exceptions import DatabaseError

from booking import seats
from booking.platform.postgres import DatabaseAway, Server, primary, replica
from booking.platform.postgres_urls import parse_database_url
from booking.platform.redis import Script, redis
from booking.platform.resources import read_text
from booking.seats import seat_map, seat_map_cache
from booking.seats.problems import SeatTaken
from booking.seats.seat_map_cache import Reading
from encore_stack.instance import Instance
from encore_stack.parts.postgres import connect
from support.client import Person
from support.replica import Replay, replay_of, wait_for_replica
from support.shop import Shop

_AWAY = "postgresql://encore@127.0.0.1:1/encore"
_REPLAYED = "m.replayed = cardinality(cast(:numbers as integer[]))"
_ONLY_WHOLE = "if marked.whole then"
_RISES = """        move_marker()
        redis.call('DEL', MAP, OVERTAKEN)
"""


@pytest.fixture
def redis_topology() -> str:
    """The marker's scripts run on every topology in the cache's own tests; here Postgres is what differs."""
    return "single"


@pytest.fixture
def replay(instance: Instance) -> Iterator[Replay]:
    with replay_of(instance) as replay:
        yield replay


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who was asked for seat maps, in order: "replica", "primary"."""
    asked: list[str] = []
    run = Server._run

    def noting(server: Server, sql: str, parameters: dict[str, Any]) -> Any:
        if sql == seat_map._SEAT_MAP:
            asked.append("replica" if server is replica() else "primary")
        return run(server, sql, parameters)

    monkeypatch.setattr(Server, "_run", noting)
    return asked


@pytest.fixture
def trust_any_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule taken out: a replica answers whatever it has replayed."""
    assert _REPLAYED in seat_map._SEAT_MAP, "the guard is no longer written like this: mend this negative control"
    monkeypatch.setattr(seat_map, "_SEAT_MAP", seat_map._SEAT_MAP.replace(_REPLAYED, "true"))


def weaken(monkeypatch: pytest.MonkeyPatch, name: str, file: str, guard: str, instead: str) -> None:
    """Take a guard out of a script of the cache."""
    source = read_text("booking.seats", f"lua/{file}")
    assert guard in source, "the guard is no longer written like this: mend this negative control"
    whole = read_text("booking.seats", "lua/marker.lua") + source.replace(guard, instead)
    monkeypatch.setattr(seat_map_cache, name, Script(whole))


def key(shop: Shop, name: str) -> str:
    return f"seatmap:{{s{shop.concert_id}}}:{name}"


def forget_map(shop: Shop) -> None:
    """The map expires."""
    redis("cache").delete(key(shop, "map"))


def forget_all(shop: Shop) -> None:
    """Redis is wiped."""
    redis("cache").delete(*[key(shop, name) for name in ("map", "versions", "reader")])


def marked(shop: Shop) -> dict[str, str]:
    found = redis("cache").hgetall(key(shop, "versions"))
    return {name.decode(): value.decode() for name, value in found.items()}  # type: ignore[union-attr]


def states(shop: Shop, *numbers: int) -> list[str]:
    """What step 5 shows of these seats."""
    shown = json.loads(seats.show_seat_map(shop.concert_id, shop.concert_id).body)["seats"]
    return [seat["state"] for seat in shown if seat["number"] in numbers]


def whole_marker(shop: Shop) -> None:
    """Let the primary write it: from now on a replica may answer."""
    shop.map_state(1)
    forget_map(shop)


def hold_silently(shop: Shop, numbers: list[int], name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Hold seats by a process that dies between its commit and telling the cache."""
    with monkeypatch.context() as dying:
        dying.setattr("booking.seats.locks.run_together", lambda _: None)
        return shop.hold(numbers, name)


# --- who answers ---------------------------------------------------------------------------------------------------


def test_the_primary_answers_first_and_then_the_replica(shop: Shop, answers: list[str]) -> None:
    shop.map_state(1)
    forget_map(shop)
    shop.map_state(1)
    shop.hold([1])
    wait_for_replica()
    assert shop.map_state(1) == "held"

    assert answers == ["primary", "replica", "replica"]
    assert marked(shop) | {"made": "", "moved": ""} == {"made": "", "moved": "", "whole": "1", "1": "1"}


def test_a_replica_that_has_not_replayed_a_change_does_not_answer(
    shop: Shop, replay: Replay, answers: list[str]
) -> None:
    whole_marker(shop)
    replay.pause()

    shop.hold([1, 2])
    assert states(shop, 1, 2, 3) == ["held", "held", "available"]
    assert answers[1:] == ["replica", "primary"]
    assert states(shop, 1, 2) == ["held", "held"]  # cached
    forget_map(shop)
    assert states(shop, 1, 2) == ["held", "held"]  # still behind
    assert answers[3:] == ["replica", "primary"]

    replay.resume()
    forget_map(shop)
    assert states(shop, 1, 2) == ["held", "held"]
    assert answers[5:] == ["replica"]


def test_who_was_told_of_a_change_sees_it_over_http(
    shop: Shop, replay: Replay, http: httpx.Client, answers: list[str]
) -> None:
    person, path = Person(http).join(shop.concert_id), f"schedules/{shop.concert_id}/seats"
    whole_marker(shop)
    replay.pause()

    def shown(known: str = "") -> tuple[str, str]:
        answer = http.get(path, headers=person.with_pass | {"If-None-Match": known})
        assert answer.status_code == 200, "304: the map that the person had before the change"
        return answer.json()["seats"][0]["state"], answer.headers["etag"]

    _, etag = shown()
    held = person.reserve(shop.concert_id, [1])
    state, etag = shown(etag)
    assert (held.status_code, state) == (201, "held")
    given_back = http.delete(f"reservations/{held.json()['reservation_id']}", headers=person.with_pass)
    state, _ = shown(etag)
    assert (given_back.json()["status"], state) == ("cancelled", "available")
    assert answers.count("primary") == 3


def test_without_the_rule_a_lagging_replica_hides_the_hold(shop: Shop, replay: Replay, trust_any_replica: None) -> None:
    whole_marker(shop)
    replay.pause()

    shop.hold([1, 2])

    assert states(shop, 1, 2) == ["available", "available"], (
        "the pause proves nothing: the hold was seen without the rule"
    )


def test_without_a_replica_the_primary_answers(
    shop: Shop, answers: list[str], use_settings: Callable[..., None]
) -> None:
    whole_marker(shop)
    shop.hold([1])
    use_settings(replica_url=_AWAY)

    assert shop.map_state(1) == "held"
    assert answers[-1] == "primary"


def test_without_a_primary_the_replica_answers_as_it_is_and_nothing_is_kept(
    shop: Shop, replay: Replay, answers: list[str], use_settings: Callable[..., AbstractContextManager[None]]
) -> None:
    whole_marker(shop)
    replay.pause()
    shop.hold([1])
    with use_settings(database_url=_AWAY):
        assert shop.map_state(1) == "available"
        assert shop.map_state(2) == "available"
        assert answers[-1] == "replica"
        assert not redis("cache").exists(key(shop, "map"))

        forget_all(shop)
        assert shop.map_state(2) == "available"
        assert "whole" not in marked(shop)

    assert shop.map_state(1) == "held"


def test_without_a_primary_a_schedule_that_the_replica_does_not_know_is_not_unknown(
    replay: Replay, use_settings: Callable[..., AbstractContextManager[None]]
) -> None:
    replay.pause()
    shop = Shop.open(wait=False)

    with use_settings(database_url=_AWAY), pytest.raises(DatabaseAway):
        shop.map_state(1)


def test_a_replica_that_gives_up_is_no_answer(shop: Shop, answers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaying may cancel what a replica reads, and a slow one runs into the statement's timeout."""
    whole_marker(shop)
    run = Server._run

    def cancelled(server: Server, sql: str, parameters: dict[str, Any]) -> Any:
        if server is replica():
            sql = "do $$ begin raise exception 'conflict with recovery' using errcode = '40001'; end $$"
            parameters = {}
        return run(server, sql, parameters)

    monkeypatch.setattr(Server, "_run", cancelled)

    assert shop.map_state(1) == "available"
    assert answers[-1] == "primary"


def test_a_schedule_that_the_replica_does_not_know_yet_is_shown(replay: Replay, answers: list[str]) -> None:
    replay.pause()
    shop = Shop.open(wait=False)

    for _ in range(2):
        assert shop.map_state(1) == "available"
        forget_map(shop)
    assert answers == ["primary", "replica", "primary"]


# --- what a stale replica cannot do --------------------------------------------------------------------------------


def cross(shop: Shop, replay: Replay, instance: Instance, database_url: str) -> None:
    """Two writers whose commits cross: the one with the lower transaction id commits last, and the replica stands
    between them. Both have been told that they hold their seat."""
    database = parse_database_url(database_url).database
    with closing(connect(instance, instance.postgres_primary, database=database)) as slow:
        slow.run("begin")
        [[verdict]] = slow.run(
            "select hold_seats(:person, 'key', 'hash', :id, 'pass', :id, '{1}', 300, 900, 'correlation')",
            person=shop.shopper("slow").person,
            id=shop.concert_id,
        )
        shop.hold([2], "quick")
        replay.pause()
        slow.run("commit")
        seats.seats_changed(verdict["changed"])


@pytest.mark.race
def test_of_two_writers_whose_commits_cross_neither_is_missed(
    shop: Shop, replay: Replay, answers: list[str], instance: Instance, database_url: str
) -> None:
    whole_marker(shop)

    cross(shop, replay, instance, database_url)

    assert states(shop, 1, 2) == ["held", "held"]
    assert answers[1:] == ["replica", "primary"]


@pytest.mark.race
def test_without_the_rule_the_slower_of_the_two_is_missed(
    shop: Shop, replay: Replay, trust_any_replica: None, instance: Instance, database_url: str
) -> None:
    whole_marker(shop)

    cross(shop, replay, instance, database_url)

    assert states(shop, 1, 2) == ["available", "held"], "the crossing proves nothing: both were seen without the rule"


def lagging_crowd(replay: Replay) -> list[list[str]]:
    """Each of eight people holds, looks, gives back and looks, several times, while the replica lags."""
    shop = Shop.open(seats=8, limit=100)
    whole_marker(shop)
    replay.lag(300)

    def change_and_look(number: int) -> list[str]:
        name, seen = f"person {number}", []
        for _ in range(5):
            held = shop.hold([number], name)
            seen.append(shop.map_state(number))
            seats.release_hold(held["reservation_id"], shop.shopper(name).person)
            seen.append(shop.map_state(number))
        return seen

    with ThreadPoolExecutor(8) as people:
        return list(people.map(change_and_look, range(1, 9)))


@pytest.mark.race
def test_with_a_replica_that_lags_each_person_sees_their_own_changes_at_once(replay: Replay) -> None:
    assert lagging_crowd(replay) == [["held", "available"] * 5] * 8


@pytest.mark.race
def test_without_the_rule_people_do_not_see_their_own_changes(replay: Replay, trust_any_replica: None) -> None:
    assert lagging_crowd(replay) != [["held", "available"] * 5] * 8, "the lag proves nothing: nobody saw a stale map"


def test_a_lagging_replica_never_sells(shop: Shop, replay: Replay, trust_any_replica: None) -> None:
    whole_marker(shop)
    replay.pause()
    shop.hold([1], "first")
    assert shop.map_state(1) == "available"  # the worst that a stale map can say

    with pytest.raises(SeatTaken):
        shop.hold([1], "second")

    assert shop.ledger(1) == ["held"]


# --- losses --------------------------------------------------------------------------------------------------------


def wiped_between_two_changes(shop: Shop, replay: Replay, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The replica has the one change that the marker knows of after a loss, and lacks another that was told before."""
    whole_marker(shop)
    replayed = hold_silently(shop, [2], "first", monkeypatch)
    replay.pause()
    shop.hold([1], "second")
    forget_all(shop)
    tell(replayed)
    return states(shop, 1, 2)


def tell(reservation: dict[str, Any]) -> None:
    """What the consumer of the events does with any of this reservation's."""
    versions = primary().document(
        "select seat_versions(schedule_id, seats)::text from reservation where id = cast(:id as uuid)",
        id=reservation["reservation_id"],
    )
    seats.seats_changed(versions, said_before=True)


def test_after_a_loss_a_marker_counts_only_once_the_primary_has_made_it_whole(
    shop: Shop, replay: Replay, answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wiped_between_two_changes(shop, replay, monkeypatch) == ["held", "held"]
    assert answers[1:] == ["primary"]
    assert marked(shop) | {"made": "", "moved": ""} == {"made": "", "moved": "", "whole": "1", "1": "1", "2": "1"}


def test_trusting_a_marker_that_is_not_whole_hides_a_change(
    shop: Shop, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    weaken(monkeypatch, "_CLAIM", "claim_refill.lua", _ONLY_WHOLE, "if true then")

    assert wiped_between_two_changes(shop, replay, monkeypatch) == ["available", "held"]


def test_a_change_that_nobody_told_is_told_by_its_events(
    shop: Shop, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_marker(shop)
    replay.pause()
    held = hold_silently(shop, [1], "first", monkeypatch)
    assert shop.map_state(1) == "available"

    tell(held)

    assert shop.map_state(1) == "held"


def test_what_was_told_already_costs_nobody_the_map(shop: Shop) -> None:
    held = shop.hold([1])
    shop.map_state(1)

    tell(held)

    assert redis("cache").exists(key(shop, "map"))


def overtaken_by_the_primary(shop: Shop, replay: Replay, monkeypatch: pytest.MonkeyPatch) -> str:
    """A reader of the replica is overtaken by one of the primary, who sees a change that nobody has told yet."""
    whole_marker(shop)
    replay.pause()
    held = hold_silently(shop, [1], "first", monkeypatch)
    read = seat_map.read_seat_map

    def slowly(schedule_id: int, asked: Any) -> Reading | None:
        reading = read(schedule_id, asked)
        monkeypatch.setattr(seat_map, "read_seat_map", lambda known, _: read(known, None))
        redis("cache").delete(key(shop, "reader"))  # it has taken longer than its second
        assert shop.map_state(1) == "held"
        return reading

    monkeypatch.setattr(seat_map, "read_seat_map", slowly)
    assert shop.map_state(1) == "available"  # asked for before
    tell(held)
    return shop.map_state(1)


def test_what_the_primary_knows_is_not_covered_by_an_older_reading(
    shop: Shop, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert overtaken_by_the_primary(shop, replay, monkeypatch) == "held"


def test_without_moving_the_marker_the_older_reading_covers_it(
    shop: Shop, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    weaken(monkeypatch, "_FINISH", "finish_refill.lua", _RISES, "")

    assert overtaken_by_the_primary(shop, replay, monkeypatch) == "available"


@pytest.mark.parametrize("then", [ConnectionResetError(), DatabaseError({"C": "55P03"})], ids=["cut again", "busy"])
def test_a_change_of_unknown_outcome_lets_the_primary_answer(
    shop: Shop, replay: Replay, answers: list[str], monkeypatch: pytest.MonkeyPatch, then: Exception
) -> None:
    """The connection is cut after the commit: nobody is told, and the map shows what came of it."""
    whole_marker(shop)
    shop.map_state(1)
    replay.pause()
    run = Server._run
    faults: Iterator[Exception] = iter((ConnectionResetError(), then))

    def cut(server: Server, sql: str, parameters: dict[str, Any]) -> Any:
        found = run(server, sql, parameters)
        if "hold_seats" in sql:
            raise next(faults)
        return found

    with monkeypatch.context() as cutting:
        cutting.setattr(Server, "_run", cut)
        with pytest.raises(DatabaseAway):
            shop.hold([1])

    assert shop.map_state(1) == "held"
    assert answers[-1] == "primary"
    assert "whole" in marked(shop)


def unknown_change_while_the_primary_answers(shop: Shop, replay: Replay, monkeypatch: pytest.MonkeyPatch) -> str:
    """A hold is committed and its connection cut while somebody reads a map that has no marker yet."""
    read = seat_map.read_seat_map

    def overtaken(*asked: Any) -> Reading | None:
        reading = read(*asked)
        monkeypatch.setattr(seat_map, "read_seat_map", read)
        replay.pause()
        hold_silently(shop, [1], "first", monkeypatch)
        seat_map_cache.seats_may_have_changed(shop.concert_id)
        return reading

    monkeypatch.setattr(seat_map, "read_seat_map", overtaken)
    shop.map_state(1)
    return shop.map_state(1)


def test_who_read_before_a_change_of_unknown_outcome_does_not_call_the_marker_whole(
    shop: Shop, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unknown_change_while_the_primary_answers(shop, replay, monkeypatch) == "held"


def test_without_renewing_the_marker_its_reader_calls_it_whole(
    shop: Shop, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    weaken(monkeypatch, "_CHANGE", "seats_changed.lua", "renew_marker()", "redis.call('HDEL', MARKER, 'whole')")

    assert unknown_change_while_the_primary_answers(shop, replay, monkeypatch) == "available"


def test_commits_that_a_failover_lost_keep_no_replica_out_for_ever(shop: Shop, answers: list[str]) -> None:
    whole_marker(shop)
    seats.seats_changed({"schedule_id": shop.concert_id, "versions": {"1": 7}})

    for _ in range(2):
        shop.map_state(1)
        forget_map(shop)

    assert answers[1:] == ["replica", "primary", "replica"]
    assert "1" not in marked(shop)


def test_a_change_is_news_whatever_a_failover_has_lost(shop: Shop) -> None:
    """The seat's version was reached once before, by a commit that is gone; a map of that time is still cached."""
    seats.seats_changed({"schedule_id": shop.concert_id, "versions": {"1": 1}})
    shop.map_state(2)
    with_lost_commits = redis("cache").get(key(shop, "map"))
    seats.seats_changed({"schedule_id": shop.concert_id, "versions": {"1": 1}})
    redis("cache").set(key(shop, "map"), with_lost_commits, px=30_000)  # type: ignore[arg-type]

    shop.hold([1])

    assert shop.map_state(1) == "held"


# --- bounds --------------------------------------------------------------------------------------------------------


def test_a_marker_names_each_seat_once_and_ends(shop: Shop) -> None:
    for _ in range(3):
        held = shop.hold([1, 2])
        shop.map_state(1)
        seats.release_hold(held["reservation_id"], shop.shopper().person)
    shop.map_state(1)

    assert marked(shop) | {"made": "", "moved": ""} == {"made": "", "moved": "", "whole": "1", "1": "6", "2": "6"}
    assert 590_000 < int(redis("cache").pttl(key(shop, "versions"))) <= 600_000


def test_a_marker_of_a_schedule_that_does_not_exist_ends_soon() -> None:
    unknown = Shop(2**61)
    with pytest.raises(seat_map.ScheduleUnknown):
        seats.show_seat_map(unknown.concert_id, unknown.concert_id)

    assert 0 < int(redis("cache").pttl(key(unknown, "versions"))) <= 30_000


@pytest.mark.race
def test_two_hundred_readers_of_a_cold_map_ask_the_replica_once(shop: Shop, answers: list[str]) -> None:
    whole_marker(shop)
    shop.hold([1])
    wait_for_replica()
    answers.clear()
    started = threading.Barrier(200)

    def reader(_: int) -> str:
        redis("cache").exists("anything")  # warm environments, each with a connection of its own
        started.wait()
        return shop.map_state(1)

    with ThreadPoolExecutor(200) as readers:
        assert set(readers.map(reader, range(200))) == {"held"}

    assert answers == ["replica"]
