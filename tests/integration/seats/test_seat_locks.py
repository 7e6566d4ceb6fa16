"""Seat locks: whom they keep out, for how long, and what their history tells. They shed load and guard nothing."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from redis.connection import Connection
from redis.exceptions import RedisError

from booking.platform.postgres import Server
from booking.platform.redis import redis
from booking.platform.redis_keys import seat_lock_key, seat_lock_names
from booking.seats import locks
from booking.seats.lock_history import Contention, LockHistory, read_lock_history
from booking.seats.locks import SeatLocks, seat_locks
from booking.seats.problems import SeatTaken
from support.client import Person, assert_problem
from support.shop import Shop
from support.waiting import wait_for

_schedules = itertools.count(random.randrange(2**40) * 1000)
ANNA, BEN, CARL = "anna.1", "ben.1", "carl.1"


@pytest.fixture
def schedule() -> int:
    """Locks need no schedule in the database."""
    return next(_schedules)


class Hourglass:
    """The time of the locks' module: it passes when somebody sleeps. ``then`` happens at each sleep."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.slept_s: list[float] = []
        self.then: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, pause_s: float) -> None:
        self.slept_s.append(pause_s)
        self.now_s += pause_s
        self.then()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Hourglass:
    hourglass = Hourglass()
    monkeypatch.setattr(locks, "time", hourglass)
    return hourglass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often Redis and Postgres are asked."""
    counted: Counter[str] = Counter()

    def counting(kind: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def ask_and_count(*args: Any, **options: Any) -> Any:
            counted[kind] += 1
            return ask(*args, **options)

        return ask_and_count

    monkeypatch.setattr(Connection, "send_packed_command", counting("redis", Connection.send_packed_command))
    monkeypatch.setattr(Server, "_run", counting("sql", Server._run))
    return counted


@pytest.fixture
def holding() -> Iterator[Callable[..., SeatLocks]]:
    """Holds locks until the end of the test, or until ``let_go``: ``holding(schedule, [1], owner)``."""
    with ExitStack() as held:
        yield lambda *what: held.enter_context(seat_locks(*what))


def lock_of(schedule: int, seat: int) -> bytes | None:
    found: bytes | None = redis("locks").get(seat_lock_key(schedule, str(seat)))
    return found


def names(schedule: int) -> set[str]:
    """The names of a schedule's keys."""
    return {seat_lock_names(key)[1] for key in redis("locks").keys_like(seat_lock_key(schedule, "*"))}


def refused(schedule: int, seats: list[int], owner: str) -> list[int]:
    """The seats that an attempt is refused."""
    with pytest.raises(SeatTaken) as fault, seat_locks(schedule, seats, owner):
        pytest.fail("it should have been kept out")
    taken: list[int] = fault.value.members["seats"]
    return taken


# --- whom they keep out --------------------------------------------------------------------------------------------


def test_a_lock_names_its_owner_and_expires(schedule: int, holding: Callable[..., SeatLocks]) -> None:
    held = holding(schedule, [1, 2], ANNA)

    assert lock_of(schedule, 1) == lock_of(schedule, 2) == f"{held.number} {ANNA}".encode()
    assert 2_000 < redis("locks").pttl(seat_lock_key(schedule, "1")) <= 3_000


def test_all_seats_or_none_in_one_call(
    schedule: int, holding: Callable[..., SeatLocks], asked: Counter[str], time: Hourglass
) -> None:
    holding(schedule, [2], ANNA)  # opens the connection, loads the library
    asked.clear()

    with seat_locks(schedule, [3, 4, 5, 6], BEN):
        assert asked == {"redis": 1}
    assert asked == {"redis": 2}
    assert refused(schedule, [1, 2, 3], BEN) == [2]
    assert (lock_of(schedule, 1), lock_of(schedule, 3)) == (None, None)


def test_a_loser_is_answered_without_sql(
    http: httpx.Client, shop: Shop, holding: Callable[..., SeatLocks], asked: Counter[str], time: Hourglass
) -> None:
    person = Person(http).join(shop.concert_id)
    holding(shop.concert_id, [2], ANNA)
    asked.clear()

    answer = person.reserve(shop.concert_id, [1, 2])

    assert_problem(answer, 409, "seat-taken")
    assert answer.json()["seats"] == [2]
    assert asked["redis"] >= 2
    assert asked["sql"] == 0


def test_without_locks_a_loser_costs_sql(
    shop: Shop, asked: Counter[str], use_settings: Callable[..., None], holding: Callable[..., SeatLocks]
) -> None:
    """The negative control of the test above; and that a lock which Redis has lost sells nothing."""
    shop.hold([1], "first")
    holding(shop.concert_id, [1], ANNA)
    use_settings(locks_redis_url="redis://127.0.0.1:1/0")
    asked.clear()

    with pytest.raises(SeatTaken):
        shop.hold([1], "second")

    assert asked["sql"] == 1


def test_a_loser_tries_for_a_second_at_most_and_not_in_step_with_others(
    schedule: int, holding: Callable[..., SeatLocks], time: Hourglass
) -> None:
    holding(schedule, [1], ANNA)
    runs = []
    for _ in range(20):
        time.slept_s = []
        refused(schedule, [1], BEN)
        runs.append(time.slept_s)

    assert all(sum(slept_s) <= 1.0 for slept_s in runs)
    assert all(slept_s[0] <= 0.010 and max(slept_s) <= 0.200 for slept_s in runs)
    assert all(5 < len(slept_s) < 100 for slept_s in runs)
    assert len({slept_s[0] for slept_s in runs}) == 20


def test_waiting_may_be_forbidden_almost(
    schedule: int, holding: Callable[..., SeatLocks], use_settings: Callable[..., None], asked: Counter[str]
) -> None:
    holding(schedule, [1], ANNA)
    use_settings(seat_lock_wait_ms_max=1)
    asked.clear()

    assert refused(schedule, [1], BEN) == [1]
    assert asked["redis"] == 2


def test_a_retry_is_not_kept_out_and_unlocking_takes_only_its_own(
    schedule: int, holding: Callable[..., SeatLocks]
) -> None:
    with seat_locks(schedule, [1], ANNA) as first:
        retry = holding(schedule, [1], ANNA)
        assert retry.number > first.number

    assert lock_of(schedule, 1) == f"{retry.number} {ANNA}".encode()


def test_who_has_lost_a_lock_leaves_the_next_owners(
    schedule: int, holding: Callable[..., SeatLocks], use_settings: Callable[..., Any]
) -> None:
    with ExitStack() as slow:
        with use_settings(seat_lock_ttl_ms=1):
            slow.enter_context(seat_locks(schedule, [1], ANNA))
        wait_until_free(schedule, 1)
        following = holding(schedule, [1], BEN)

    assert lock_of(schedule, 1) == f"{following.number} {BEN}".encode()


def wait_until_free(schedule: int, seat: int) -> None:
    wait_for(lambda: lock_of(schedule, seat), lambda lock: lock is None, every_s=0.001)


def test_an_attempt_that_has_held_its_seats_is_never_kept_out(
    schedule: int, holding: Callable[..., SeatLocks], time: Hourglass
) -> None:
    with seat_locks(schedule, [1], ANNA) as held:
        held.held = True
    holding(schedule, [1], BEN)

    with seat_locks(schedule, [1], ANNA) as again:
        assert again.number == 0  # nothing is locked, so nothing will be unlocked
    assert time.slept_s == []
    assert lock_of(schedule, 1) is not None


def test_who_waits_when_redis_goes_away_is_left_to_postgres(
    shop: Shop, holding: Callable[..., SeatLocks], time: Hourglass, use_settings: Callable[..., None]
) -> None:
    holding(shop.concert_id, [1], ANNA)
    time.then = lambda: use_settings(locks_redis_url="redis://127.0.0.1:1/0")

    assert shop.hold([1])["status"] == "held"
    assert len(time.slept_s) == 1


# --- their numbers, and what they leave ----------------------------------------------------------------------------


def numbers(schedule: int, times: int = 3) -> list[int]:
    taken = []
    for _ in range(times):
        with seat_locks(schedule, [1], ANNA) as held:
            taken.append(held.number)
    return taken


def test_numbers_rise_also_when_redis_has_forgotten_the_last(schedule: int) -> None:
    before = numbers(schedule)
    counter = seat_lock_key(schedule, "count")
    clock_ms = "local now = redis.call('TIME') return now[1] * 1000 + math.floor(now[2] / 1000)"
    # Elsewhere a schedule's locks are not taken faster than one a millisecond.
    wait_for(lambda: redis("locks").eval(clock_ms, 1, counter), lambda now_ms: now_ms > before[-1], every_s=0.001)
    redis("locks").delete(counter)
    after = numbers(schedule)

    assert before == list(range(before[0], before[0] + 3))
    assert after == list(range(after[0], after[0] + 3))
    assert after[0] > before[-1]


def test_who_gets_the_locks_at_once_leaves_no_history(schedule: int) -> None:
    numbers(schedule)

    assert names(schedule) == {"count"}


def test_nothing_is_kept_for_ever(schedule: int, holding: Callable[..., SeatLocks], time: Hourglass) -> None:
    """Whoever has a pass may ask for schedules and seats that do not exist."""
    with seat_locks(schedule, [2], CARL) as held:
        held.held = True
    holding(schedule, [1], ANNA)
    refused(schedule, [1], BEN)

    assert names(schedule) == {"count", "1", f"held:{ANNA}", f"held:{CARL}", "waits", "contended"}
    for name in names(schedule):
        assert 0 < redis("locks").pttl(seat_lock_key(schedule, name)) <= 24 * 3600 * 1000, name


# --- their history -------------------------------------------------------------------------------------------------


def history(schedule: int) -> LockHistory:
    return read_lock_history(schedule)


def counts(schedule: int, seat: int = 1) -> Contention:
    return next(found for found in history(schedule).contended if found.seat == seat)


def get_after(time: Hourglass, schedule: int, holder: ExitStack, seats: list[int], owner: str) -> int:
    """Get seats' locks that ``holder`` lets go while one waits; the number."""
    time.then = holder.close
    with seat_locks(schedule, seats, owner) as got:
        return got.number


def test_who_waits_and_gets_the_seats_is_noted(schedule: int, time: Hourglass) -> None:
    with ExitStack() as holder:
        first = holder.enter_context(seat_locks(schedule, [1], ANNA))
        get_after(time, schedule, holder, [1, 2], BEN)

    waited_ms = round(sum(time.slept_s) * 1000)
    found = history(schedule)
    assert found.contended == [Contention(schedule, 1, 1, 0, waited_ms, waited_ms, 0)]
    [wait] = found.waits
    assert (wait.schedule_id, wait.seat, wait.ended, wait.waited_ms) == (schedule, 1, "got", waited_ms)
    assert (wait.person, wait.attempt) == ("ben", "1")
    assert (wait.holder_person, wait.holder_attempt, wait.holder_number) == ("anna", "1", first.number)
    assert found.held == []


def test_who_waits_in_vain_is_noted(schedule: int, holding: Callable[..., SeatLocks], time: Hourglass) -> None:
    holding(schedule, [1, 2], ANNA)
    refused(schedule, [1, 2, 3], BEN)
    slept_s = time.slept_s
    time.slept_s = []
    refused(schedule, [1], CARL)

    longest, both = (
        round(sum(slept) * 1000) for slept in (max(slept_s, time.slept_s, key=sum), slept_s + time.slept_s)
    )
    assert (counts(schedule).waits, counts(schedule).refused) == (2, 2)
    assert abs(counts(schedule).waited_ms - both) <= 1
    assert counts(schedule).waited_ms_max == longest
    assert counts(schedule, 2).waits == 1
    assert [(wait.person, wait.seat, wait.ended) for wait in history(schedule).waits] == [
        ("carl", 1, "refused"),
        ("ben", 2, "refused"),
        ("ben", 1, "refused"),
    ]
    assert [wait.person for wait in read_lock_history(schedule, waits_max=1).waits] == ["carl"]
    assert [seat.seat for seat in history(schedule).contended] == [1, 2]  # most waits first


def test_each_seat_has_its_own_wait(schedule: int, time: Hourglass) -> None:
    """Seat 1 is free soon; then somebody comes for seat 2, until the end."""
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(seat_locks(schedule, [1], ANNA))

        def passes_on() -> None:
            first.close()
            time.then = lambda: None
            second.enter_context(seat_locks(schedule, [2], CARL))

        time.then = passes_on
        assert refused(schedule, [1, 2], BEN) == [2]

    assert counts(schedule, 1).waited_ms == round(time.slept_s[0] * 1000)
    assert counts(schedule, 2).waited_ms == round(sum(time.slept_s[1:]) * 1000)


def test_who_is_kept_out_at_the_last_look_only_is_noted(
    schedule: int, time: Hourglass, use_settings: Callable[..., None]
) -> None:
    use_settings(seat_lock_wait_ms_max=1)
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(seat_locks(schedule, [1], ANNA))
        time.then = lambda: (first.close(), second.enter_context(seat_locks(schedule, [2], CARL)))
        assert refused(schedule, [1, 2], BEN) == [2]

    assert (counts(schedule, 2).refused, counts(schedule, 2).waited_ms) == (1, 0)


def test_a_lock_that_runs_out_under_a_slow_owner_is_noted(
    schedule: int, time: Hourglass, use_settings: Callable[..., None]
) -> None:
    use_settings(seat_lock_ttl_ms=1)
    with seat_locks(schedule, [1], ANNA) as slow:
        wait_until_free(schedule, 1)
        time.now_s += 1

    [lost] = history(schedule).waits
    assert (lost.ended, lost.person, lost.waited_ms) == ("expired", None, 0)
    assert (lost.holder_person, lost.holder_number) == ("anna", slow.number)
    assert counts(schedule).expired == 1
    assert counts(schedule).waits == 0


def test_a_lock_that_runs_out_under_a_dead_owner_is_noted_by_who_waited_for_it(
    schedule: int, time: Hourglass, use_settings: Callable[..., None]
) -> None:
    use_settings(seat_lock_ttl_ms=50)
    with ExitStack() as dead:
        died = dead.enter_context(seat_locks(schedule, [1], ANNA))

        def runs_out() -> None:
            wait_until_free(schedule, 1)
            time.now_s += 0.050

        time.then = runs_out
        with seat_locks(schedule, [1], BEN) as got:
            assert {(wait.ended, wait.holder_number) for wait in history(schedule).waits} == {
                ("got", died.number),
                ("expired", died.number),
            }
        assert got.number > died.number
    # The owner was but slow, and says so as well now.
    assert counts(schedule).expired == 1
    assert len(history(schedule).waits) == 2


def test_an_owner_whose_retry_has_the_locks_has_lost_nothing(
    schedule: int, time: Hourglass, holding: Callable[..., SeatLocks]
) -> None:
    with seat_locks(schedule, [1], ANNA):
        holding(schedule, [1], ANNA)
        time.now_s += 10

    assert history(schedule).waits == []


def test_what_redis_is_told_twice_is_noted_once(schedule: int) -> None:
    """A client whose connection breaks sends its call once more."""
    owned = SeatLocks(schedule, [1], BEN)
    keys = [owned.key("count"), owned.mark, *owned.seats, *owned.history]
    for _ in range(2):
        assert locks._LOCK(redis("locks"), keys, [BEN, 3_000, 0, 60_000, 1, 250, f"7 {ANNA}", 0]) > 0

    assert (counts(schedule).waits, len(history(schedule).waits)) == (1, 1)


def test_the_history_is_bounded(
    schedule: int, holding: Callable[..., SeatLocks], time: Hourglass, use_settings: Callable[..., None]
) -> None:
    use_settings(seat_lock_ttl_ms=60_000)
    holding(schedule, [1], ANNA)
    for _ in range(105):
        refused(schedule, [1], BEN)
    assert counts(schedule).waits == 105
    assert len(history(schedule).waits) == 100

    contended = seat_lock_key(schedule, "contended")
    redis("locks").hset(contended, mapping={str(seat): "1 0 5 5 0 0" for seat in range(1_001, 2_001)})
    holding(schedule, [2], ANNA)
    refused(schedule, [2], BEN)
    assert redis("locks").hlen(contended) == 1_001
    refused(schedule, [1], BEN)
    assert counts(schedule).waits == 106
    assert (
        redis("locks").memory_usage(contended) + redis("locks").memory_usage(seat_lock_key(schedule, "waits")) < 120_000
    )


def test_who_holds_what_is_shown_for_all_schedules(holding: Callable[..., SeatLocks]) -> None:
    """In a cluster they lie on several servers."""
    schedules = [next(_schedules) for _ in range(12)]
    held = [holding(schedule, [1, 2], ANNA) for schedule in schedules]

    found = [lock for lock in read_lock_history().held if lock.schedule_id in schedules]

    assert [(lock.schedule_id, lock.seat, lock.number) for lock in found] == [
        (each.schedule_id, seat, each.number) for each in held for seat in (1, 2)
    ]
    assert {(lock.person, lock.attempt) for lock in found} == {("anna", "1")}
    assert all(0 < lock.left_ms <= 3_000 for lock in found)


def test_without_redis_reading_says_so(use_settings: Callable[..., None]) -> None:
    use_settings(locks_redis_url="redis://127.0.0.1:1/0")
    with pytest.raises(RedisError):
        read_lock_history()


def test_people_are_hashes_in_it(http: httpx.Client, shop: Shop, time: Hourglass) -> None:
    person = Person(http).join(shop.concert_id)
    with seat_locks(shop.concert_id, [1], ANNA):
        assert person.reserve(shop.concert_id, [1]).status_code == 409

    [wait] = history(shop.concert_id).waits
    assert wait.person is not None
    assert len(wait.person) == 22
    assert person.user_id not in str(redis("locks").xrange(seat_lock_key(shop.concert_id, "waits")))


# --- metrics -------------------------------------------------------------------------------------------------------


def test_waits_are_metrics(
    schedule: int, time: Hourglass, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> list[tuple[str, str | None]]:
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [(line["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Name"], line.get("ended")) for line in lines]

    def wait_twice() -> None:
        with ExitStack() as holder:
            holder.enter_context(seat_locks(schedule, [1], ANNA))
            refused(schedule, [1], BEN)
            get_after(time, schedule, holder, [1], CARL)
        with seat_locks(schedule, [1], ANNA):
            time.now_s += 10
        time.then = lambda: None

    wait_twice()
    assert told() == []

    monkeypatch.delenv("POWERTOOLS_METRICS_DISABLED")
    wait_twice()
    assert told() == [("SeatLockWait", "refused"), ("SeatLockWait", "got"), ("SeatLocksExpired", None)]
