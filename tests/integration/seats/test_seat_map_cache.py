"""The cached seat map: one Redis GET a read, every change seen by the next read, no old map stored after a change."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from booking import payment, seats
from booking.payment.problems import PaymentDeclined
from booking.platform.postgres import primary
from booking.platform.redis import Script, redis, run_together
from booking.platform.redis_keys import seat_map_keys
from booking.platform.resources import read_text
from booking.platform.single_flight import HERE, WAIT
from booking.seats import seat_map, seat_map_cache
from booking.seats.holds import expire_holds
from booking.seats.problems import PassOfAnotherConcert, ScheduleUnknown, SeatTaken
from encore_stack.stack import Stack
from support.client import Person, assert_problem
from support.gateways import SimulatedGateway
from support.redis import runs_on, tell_masters
from support.shop import Shop, new_key
from support.trips import CountTrips

_AWAY = "redis://127.0.0.1:1/0"
_MARKER_CHECK = "local unmoved = before[2] == ARGV[3]"
_ONE_READER = "if not reader or reader == ARGV[1] then"
_READ_SINCE_I_CAME = "and overtaken_has(ARGV[5], ARGV[6])"


def key(shop: Shop, name: str = "map") -> str:
    return f"seatmap:{{s{shop.concert_id}}}:{name}"


def kept_ms(shop: Shop) -> int:
    """How long the map is still kept, negative when it is not."""
    return int(redis("cache").pttl(key(shop)))


def look(shop: Shop) -> seat_map.SeatMap:
    return seats.show_seat_map(shop.concert_id, shop.concert_id)


@pytest.fixture
def person(http: httpx.Client, shop: Shop) -> Person:
    return Person(http).join(shop.concert_id)


# --- what it costs -------------------------------------------------------------------------------------------------


def test_a_hit_is_one_redis_command_and_no_sql(
    person: Person, shop: Shop, count_trips: CountTrips, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"schedules/{shop.concert_id}/seats"
    first = person.http.get(path, headers=person.with_pass)
    monkeypatch.setattr(seat_map, "etag_of", lambda _: pytest.fail("a hit hashes nothing"))

    with count_trips() as trips:
        hit = person.http.get(path, headers=person.with_pass)
        not_modified = person.http.get(path, headers=person.with_pass | {"If-None-Match": first.headers["etag"]})

    assert trips == {"redis": 2}
    assert (hit.content, hit.headers["etag"]) == (first.content, first.headers["etag"])
    assert hit.headers["cache-control"] == "private, no-cache"
    assert not_modified.status_code == 304
    assert not_modified.headers["etag"] == first.headers["etag"]
    assert not_modified.content == b""


# --- what may be seen ----------------------------------------------------------------------------------------------


def test_each_change_is_in_the_next_read_of_anybody(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None]
) -> None:
    def seen() -> str:
        """Seat 1 as everybody sees it; the second look is a cached one."""
        state = shop.map_state(1)
        assert kept_ms(shop) > 0
        assert shop.map_state(1) == state
        return state

    assert seen() == "available"
    held = shop.hold([1], "first")
    assert seen() == "held"
    seats.release_hold(held["reservation_id"], shop.shopper("first").person)
    assert seen() == "available"

    held = shop.hold([1], "second")
    assert seen() == "held"
    shop.pay(held, "second")
    assert seen() == "sold"
    payment.cancel_reservation(held["reservation_id"], shop.shopper("second").person)  # refunded
    assert seen() == "available"

    held = shop.hold([1], "third")
    assert seen() == "held"
    use_settings(gateway_read_timeout_s=0.2)
    danal.faults(mode="approve_then_hang")
    assert shop.pay(held, "third").pending
    assert seen() == "held"
    danal.well()
    payment.cancel_reservation(held["reservation_id"], shop.shopper("third").person)  # cancelled at the gateway
    assert seen() == "available"

    held = shop.hold([1], "fourth")
    assert seen() == "held"
    danal.faults(mode="approve_then_hang")
    assert shop.pay(held, "fourth").pending
    danal.well()
    shop.lapse_within_cap(held)
    redis("cache").delete(key(shop))  # the lapse is this test's own, behind everybody's back
    assert seen() == "available"
    settle_now(held)  # retaken
    assert seen() == "sold"


def settle_now(reservation: dict[str, Any]) -> None:
    primary().rows(
        "update payment set next_check_at = clock_timestamp() where reservation_id = cast(:id as uuid)",
        id=reservation["reservation_id"],
    )
    payment.settle_due()


def test_what_only_moves_a_holds_end_makes_a_new_version(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None]
) -> None:
    use_settings(hold_ttl_s=5)
    held = shop.hold([1])
    before = look(shop)
    with suppress(PaymentDeclined):
        shop.pay(held, method="card_declined")

    after = look(shop)

    # Once for the payment's deadline; the decline leaves the hold that long.
    assert json.loads(after.body)["version"] == json.loads(before.body)["version"] + 1
    assert kept_ms(shop) > 5_000


def test_the_sweeper_moves_the_version_on(shop: Shop) -> None:
    shop.lapse(shop.hold([1]))
    before = look(shop)
    assert look(shop) == before

    expire_holds()

    after = look(shop)
    assert json.loads(after.body)["version"] == json.loads(before.body)["version"] + 1
    assert after.etag != before.etag


def test_a_retry_tells_what_its_first_try_died_before_telling(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    idempotency_key = new_key()
    look(shop)
    with monkeypatch.context() as dying:
        dying.setattr("booking.seats.locks.run_together", lambda _: None)
        shop.hold([1], key=idempotency_key)
    assert shop.map_state(1) == "available"

    shop.hold([1], key=idempotency_key)

    assert shop.map_state(1) == "held"


def test_a_refused_hold_leaves_the_cache_alone(shop: Shop) -> None:
    shop.hold([1], "first")
    look(shop)

    with pytest.raises(SeatTaken):
        shop.hold([1], "second")

    assert kept_ms(shop) > 0


def test_a_pass_of_another_concert_is_refused_on_a_hit_too(person: Person, shop: Shop) -> None:
    other = Shop.open()
    for _ in range(2):
        refused = person.http.get(f"schedules/{other.concert_id}/seats", headers=person.with_pass)
        assert_problem(refused, 403, "pass-of-another-concert")
    assert kept_ms(other) > 0
    with pytest.raises(PassOfAnotherConcert):
        seats.show_seat_map(other.concert_id, shop.concert_id)


def test_an_unknown_schedule_is_not_kept_and_keeps_nobody_waiting(person: Person, count_trips: CountTrips) -> None:
    unknown = 2**62
    for _ in range(2):
        with count_trips() as trips:
            assert_problem(
                person.http.get(f"schedules/{unknown}/seats", headers=person.with_pass), 404, "schedule-unknown"
            )
        assert trips == {"redis": 3, "sql": 1}
    with pytest.raises(ScheduleUnknown):
        seats.show_seat_map(unknown, 1)


# --- how long it is kept -------------------------------------------------------------------------------------------


def test_a_map_is_kept_half_a_minute_or_until_the_first_hold_lapses(
    shop: Shop, use_settings: Callable[..., None]
) -> None:
    look(shop)
    assert 29_000 < kept_ms(shop) <= 30_000

    shop.hold([1], "long")
    look(shop)
    assert 29_000 < kept_ms(shop) <= 30_000

    use_settings(hold_ttl_s=20)
    shop.hold([2], "shorter")
    use_settings(hold_ttl_s=10)
    shop.hold([3], "shortest")
    look(shop)
    assert 9_000 < kept_ms(shop) <= 10_000


@runs_on("single")  # it waits for a hold to lapse; that maps are kept as long as they may be runs on all of them
def test_a_lapsed_hold_does_not_stay_held(shop: Shop, use_settings: Callable[..., None]) -> None:
    use_settings(hold_ttl_s=1)
    shop.hold([1])
    assert shop.map_state(1) == "held"

    [[lapsed]] = primary().rows(
        "select held_until <= clock_timestamp() from ("
        " select pg_sleep(extract(epoch from held_until - clock_timestamp())), held_until"
        " from seat where schedule_id = :id and number = 1) slept",
        id=shop.concert_id,
    )

    assert lapsed
    assert shop.map_state(1) == "available"


def test_a_slow_reader_keeps_a_map_no_longer(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time it may be kept counts from before the reading, however late the map comes to the cache."""
    monkeypatch.setattr(seat_map_cache, "_KEPT_MS_MAX", 1)
    read = seat_map.read_seat_map

    def read_slowly(*asked: Any) -> seat_map_cache.Reading | None:
        reading = read(*asked)
        primary().rows("select pg_sleep(0.01)")
        return reading

    monkeypatch.setattr(seat_map, "read_seat_map", read_slowly)
    look(shop)

    assert redis("cache").get(key(shop)) is None


# --- races ---------------------------------------------------------------------------------------------------------


def read_then(change: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next reader of a map be overtaken by ``change`` between its reading and its storing."""
    read = seat_map.read_seat_map

    def overtaken(*asked: Any) -> seat_map_cache.Reading | None:
        reading = read(*asked)
        monkeypatch.setattr(seat_map, "read_seat_map", read)
        change()
        return reading

    monkeypatch.setattr(seat_map, "read_seat_map", overtaken)


@pytest.fixture
def weaken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str, str], None]:
    """``weaken(name, file, guard, instead)``: the cache's script with a guard taken out."""

    def install(name: str, file: str, guard: str, instead: str) -> None:
        source = read_text("booking.seats", f"lua/{file}")
        assert guard in source, "the guard is no longer written like this: mend this negative control"
        whole = read_text("booking.seats", "lua/marker.lua") + source.replace(guard, instead)
        monkeypatch.setattr(seat_map_cache, name, Script(whole))

    return install


@pytest.mark.race
def test_who_read_before_a_change_stores_nothing_after_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    read_then(lambda: shop.hold([1]), monkeypatch)

    assert shop.map_state(1) == "available"  # asked for before the change
    assert kept_ms(shop) < 0
    assert shop.map_state(1) == "held"


@pytest.mark.race
def test_without_the_markers_check_the_old_map_hides_the_change(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, weaken: Callable[..., None]
) -> None:
    weaken("_FINISH", "finish_refill.lua", _MARKER_CHECK, "local unmoved = true")
    read_then(lambda: shop.hold([1]), monkeypatch)

    look(shop)

    assert shop.map_state(1) == "available", "the race proves nothing: without the check the change was seen"
    assert shop.seat(1)["state"] == "held"


@pytest.mark.race
@pytest.mark.parametrize("lost", ["before the change", "after the change"])
def test_a_redis_that_forgets_lets_no_old_map_in(shop: Shop, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    def forget_and_hold() -> None:
        names = [key(shop, name) for name in ("map", "versions", "reader")]
        if lost == "before the change":
            redis("cache").delete(*names)
        shop.hold([1])
        if lost == "after the change":
            redis("cache").delete(*names)

    read_then(forget_and_hold, monkeypatch)
    look(shop)

    assert shop.map_state(1) == "held"


@pytest.mark.race
def test_amid_many_changes_each_person_sees_their_own_at_once() -> None:
    shop = Shop.open(seats=12, limit=100)

    def change_and_look(number: int) -> list[str]:
        seen = []
        for _ in range(10):
            held = shop.hold([number], f"person {number}")
            seen.append(shop.map_state(number))
            seats.release_hold(held["reservation_id"], shop.shopper(f"person {number}").person)
            seen.append(shop.map_state(number))
        return seen

    with ThreadPoolExecutor(12) as people:
        for seen in people.map(change_and_look, range(1, 13)):
            assert seen == ["held", "available"] * 10


def crowd(shop: Shop, people: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, set[str]]:
    """So many readers of a cold map at once: how many asked Postgres, and the ETags that they got."""
    reads: list[Any] = []
    started = threading.Barrier(people)
    read = seat_map.read_seat_map

    def read_slowly(*asked: Any) -> seat_map_cache.Reading | None:
        reads.append(asked)
        primary().rows("select pg_sleep(0.05)")  # widens the window in which the others come
        return read(*asked)

    monkeypatch.setattr(seat_map, "read_seat_map", read_slowly)

    def reader(_: int) -> str:
        redis("cache").exists("anything")  # warm environments, each with a connection of its own
        started.wait()
        etag = look(shop).etag
        primary().close()
        return etag

    with ThreadPoolExecutor(people) as readers:
        etags = set(readers.map(reader, range(people)))
    return len(reads), etags


@pytest.mark.race
def test_two_hundred_readers_of_a_cold_map_ask_the_database_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, etags = crowd(shop, 200, monkeypatch)

    assert 1 <= queries <= 3
    assert len(etags) == 1


@pytest.mark.race
def test_without_the_readers_lock_they_all_ask(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, weaken: Callable[..., None]
) -> None:
    weaken("_CLAIM", "claim_refill.lua", _ONE_READER, "if true then")

    queries, etags = crowd(shop, 20, monkeypatch)

    assert queries > 3, "the stampede proves nothing: without the lock there was none"
    assert len(etags) == 1


@runs_on("single")  # it waits until it has waited for long enough
@pytest.mark.race
def test_readers_wait_a_moment_only_for_one_that_has_died(shop: Shop, count_trips: CountTrips) -> None:
    redis("cache").set(key(shop, "reader"), "somebody who died", px=60_000)

    with count_trips() as trips:
        assert shop.map_state(1) == "available"

    assert trips["sql"] == 1
    assert trips["redis"] > 5  # it looked again and again
    assert kept_ms(shop) > 0, "who gave up waiting has filled the cache for the rest"


def test_a_dead_readers_lock_ends_by_itself(shop: Shop) -> None:
    claimed = seat_map_cache._wait_or_claim(seat_map_keys(shop.concert_id))

    assert isinstance(claimed, seat_map_cache._Refill)
    assert 0 < redis("cache").pttl(key(shop, "reader")) <= 1_000


# --- more changes than readings ------------------------------------------------------------------------------------


class Waiter:
    """Somebody who came while another was reading the map, look by look."""

    def __init__(self, shop: Shop) -> None:
        self._keys = seat_map_keys(shop.concert_id)
        what, self._made, self._moved = self._look("", "")
        assert what == WAIT

    def state(self, seat: int) -> str | None:
        """Seat ``seat`` in the map that the next look brings, None when it is still to wait or to read."""
        found = self._look(self._made, self._moved)
        if found[0] != HERE:
            return None
        shown = json.loads(seat_map_cache._unpack(found[1]).body)
        return str(shown["seats"][seat - 1]["state"])

    def _look(self, made: str, moved: str) -> list[Any]:
        reply: list[Any] = seat_map_cache._CLAIM(redis("cache"), self._keys, ["waiter", 1_000, 1_000, 0, made, moved])
        return reply


def begin_to_read(shop: Shop) -> Callable[[], None]:
    """Somebody begins to read the map and has read it; what is returned lets them store it."""
    refill = seat_map_cache._wait_or_claim(seat_map_keys(shop.concert_id))
    assert isinstance(refill, seat_map_cache._Refill)
    reading = seat_map.read_seat_map(shop.concert_id, refill.marked)
    return lambda: seat_map_cache._finish(refill, reading)


@pytest.mark.race
def test_who_came_before_a_change_gets_the_map_that_it_has_overtaken(shop: Shop) -> None:
    store = begin_to_read(shop)
    waiter = Waiter(shop)
    shop.hold([1])
    store()

    assert waiter.state(1) == "available"
    assert shop.map_state(1) == "held"
    shop.hold([2], "second")
    assert waiter.state(1) == "held", "the newer of two overtaken maps is kept"


@pytest.mark.race
def test_who_came_after_a_change_does_not_get_the_map_that_it_has_overtaken(shop: Shop) -> None:
    store = begin_to_read(shop)
    shop.hold([1])
    waiter = Waiter(shop)
    store()

    assert waiter.state(1) is None


@pytest.mark.race
def test_without_asking_when_it_was_read_the_overtaken_map_hides_the_change(
    shop: Shop, weaken: Callable[..., None]
) -> None:
    weaken("_CLAIM", "claim_refill.lua", _READ_SINCE_I_CAME, "and redis.call('EXISTS', OVERTAKEN) == 1")
    store = begin_to_read(shop)
    shop.hold([1])
    waiter = Waiter(shop)
    store()

    assert waiter.state(1) == "available", "the race proves nothing: the overtaken map was not there"


@pytest.mark.race
@pytest.mark.parametrize("forget", ["an unknown change", "a switch to the database", "a wipe"])
def test_an_overtaken_map_does_not_outlive(shop: Shop, forget: str) -> None:
    store = begin_to_read(shop)
    waiter = Waiter(shop)
    if forget == "an unknown change":
        seat_map_cache.seats_may_have_changed(shop.concert_id)
    elif forget == "a wipe":
        redis("cache").delete(*seat_map_keys(shop.concert_id))
        shop.hold([1])
    else:
        run_together([seat_map_cache.call_of_switch(shop.concert_id, past_cache=True)])
    store()

    assert waiter.state(1) is None


@pytest.mark.race
def test_readers_of_a_map_that_changes_all_the_time_share_its_readings(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    people, looks_each = 20, 10
    reads: list[Any] = []
    read = seat_map.read_seat_map

    def changed_while_read(*asked: Any) -> seat_map_cache.Reading | None:
        reads.append(asked)
        primary().rows("select pg_sleep(0.02)")
        reading = read(*asked)
        seats.seats_changed({"schedule_id": shop.concert_id, "versions": {"1": 0}})
        return reading

    monkeypatch.setattr(seat_map, "read_seat_map", changed_while_read)

    def reader(_: int) -> None:
        for _ in range(looks_each):
            look(shop)
        primary().close()

    with ThreadPoolExecutor(people) as readers:
        list(readers.map(reader, range(people)))
    assert len(reads) < people * looks_each / 2, "each look asks the database"


# --- Redis away ----------------------------------------------------------------------------------------------------


def test_without_redis_the_primary_answers_and_the_sale_goes_on(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None]
) -> None:
    use_settings(cache_redis_url=_AWAY, locks_redis_url=_AWAY, queue_redis_url=_AWAY)

    assert shop.map_state(1) == "available"
    held = shop.hold([1])
    assert shop.map_state(1) == "held"
    shop.pay(held)
    assert shop.map_state(1) == "sold"
    payment.cancel_reservation(held["reservation_id"], shop.shopper().person)
    assert shop.map_state(1) == "available"


def test_only_the_cache_away_unlocks_the_seats_all_the_same(shop: Shop, use_settings: Callable[..., None]) -> None:
    use_settings(cache_redis_url=_AWAY)
    held = shop.hold([1], "first")
    seats.release_hold(held["reservation_id"], shop.shopper("first").person)

    assert shop.hold([1], "second")["status"] == "held"
    assert not redis("locks").exists(f"seatlocks:{{s{shop.concert_id}}}:1")


def test_redis_going_away_between_looking_and_storing_costs_nobody_the_map(
    shop: Shop, use_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_then(lambda: use_settings(cache_redis_url=_AWAY), monkeypatch)

    assert shop.map_state(1) == "available"


def test_scripts_that_the_server_has_forgotten_are_loaded_again(shop: Shop, redis_stack: Stack) -> None:
    look(shop)
    tell_masters(redis_stack, "SCRIPT", "FLUSH")

    shop.hold([1])

    assert shop.map_state(1) == "held"
    assert not redis("locks").exists(f"seatlocks:{{s{shop.concert_id}}}:1")
