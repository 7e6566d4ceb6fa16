"""The best seats on request: side by side where there are such, never the same for two, nobody refused without need."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import booking.seats
from booking.operations.audit import Auditor, Verdict
from booking.platform.postgres import DatabaseBusy, Server, primary
from booking.platform.problems import BadRequest, Refusal
from booking.platform.settings import settings
from booking.queue import TurnOver
from booking.seats.problems import (
    KeyReused,
    OverLimit,
    PassOfAnotherConcert,
    SaleClosed,
    ScheduleUnknown,
    SectionUnknown,
    TooFewSeatsLeft,
)
from support.redis import runs_on
from support.rows import deadlocks, locked_seats, wait_until_somebody_waits
from support.shop import PRICE, Shop, new_key
from support.sound import SOUND

pytestmark = runs_on("single")  # who asks for the best locks nothing there

_FUNCTIONS = Path(booking.seats.__file__).parent / "sql" / "functions"


# --- what is best --------------------------------------------------------------------------------------------------


def test_the_first_seats_that_are_side_by_side_in_one_row(shop: Shop) -> None:
    shop.arrange(("A", "1", 3), ("A", "2", 3), ("B", "1", 4))
    shop.hold([2], "somebody")

    assert shop.hold_best(2, "first")["seats"] == [4, 5]
    held = shop.hold_best(3, "second")
    assert held["seats"] == [7, 8, 9]
    assert held["side_by_side"] is True
    assert held["total"] == 3 * PRICE
    assert shop.hold_best(1, "third")["seats"] == [1]


def test_a_section_is_kept_to(shop: Shop) -> None:
    shop.arrange(("A", "1", 4), ("B", "1", 6))

    assert shop.hold_best(2, "first", section="B")["seats"] == [5, 6]
    assert shop.hold_best(4, "second", section="B")["seats"] == [7, 8, 9, 10]
    with pytest.raises(TooFewSeatsLeft) as refused:
        shop.hold_best(1, "third", section="B")
    assert refused.value.members == {"seats_left": 0}
    with pytest.raises(SectionUnknown):
        shop.hold_best(1, "third", section="Z")


@pytest.mark.parametrize(
    ("taken", "count", "seats"),
    [
        ([2, 4, 6, 8], 2, [1, 3]),
        ([2, 5, 8], 4, [3, 4, 6, 7]),
        ([2, 6, 8], 4, [1, 3, 4, 5]),  # one piece of three before one that lies nearer
        ([1, 3, 5, 8], 3, [2, 6, 7]),
        ([5], 4, [1, 2, 3, 4]),
    ],
)
def test_where_no_row_has_so_many_they_are_in_as_few_pieces_as_can_be(
    taken: list[int], count: int, seats: list[int]
) -> None:
    shop = Shop.open(seats=8)
    for number in taken:
        shop.hold([number], f"person {number}")

    held = shop.hold_best(count)

    assert held["seats"] == seats
    assert held["side_by_side"] is (len(set(seats)) == seats[-1] - seats[0] + 1)


def test_the_end_of_a_row_is_not_beside_the_next(shop: Shop) -> None:
    shop.arrange(("A", "1", 1), ("A", "2", 1), ("B", "2", 1), ("C", "1", 7))
    shop.hold([4, 5, 6, 7], "first")
    shop.hold([8, 9, 10], "second")

    held = shop.hold_best(2)

    assert held["seats"] == [1, 2]
    assert held["side_by_side"] is False


def test_a_lapsed_hold_is_free(shop: Shop, audit: Callable[[], Verdict]) -> None:
    shop.lapse(shop.hold([1, 2], "slow"))

    assert shop.hold_best(2)["seats"] == [1, 2]
    assert audit().violations == SOUND


HALL = st.lists(  # rows of a section, each with its seats from the left: is it free?
    st.tuples(st.sampled_from("AB"), st.lists(st.booleans(), min_size=1, max_size=6)), min_size=1, max_size=5
)
_SEAT = """
insert into seat (schedule_id, number, section, row_label, price, state, reservation_id)
select -1, number, section, row_label, 1, case when free then 'available' else 'sold' end,
       case when not free then gen_random_uuid() end
from unnest(cast(:numbers as integer[]), cast(:sections as text[]), cast(:rows as text[]), cast(:free as boolean[]))
    as s (number, section, row_label, free)
"""


@hypothesis_settings(max_examples=60, deadline=None, phases=(Phase.generate, Phase.shrink))
@given(HALL, st.integers(1, 4), st.sampled_from(["A", None]))
def test_of_any_hall_it_is_as_few_pieces_as_can_be_and_the_nearest_whole_one(
    hall: list[tuple[str, list[bool]]], count: int, section: str | None
) -> None:
    seats = [
        (section_of, str(row), free) for row, (section_of, seats) in enumerate(hall) for free in seats
    ]  # their numbers are their places from 1
    offered = [n for n, (of, _, free) in enumerate(seats, 1) if free and section in (None, of)]
    runs: list[list[int]] = []
    for n in offered:
        if runs and runs[-1][-1] == n - 1 and seats[n - 2][:2] == seats[n - 1][:2]:
            runs[-1].append(n)
        else:
            runs.append([n])

    with closing(Server(settings().database_url)) as server:
        server.rows("begin")
        server.rows(
            _SEAT,
            numbers=list(range(1, len(seats) + 1)),
            sections=[seat[0] for seat in seats],
            rows=[seat[1] for seat in seats],
            free=[seat[2] for seat in seats],
        )
        chosen = server.value(
            "select choose_best_seats(-1, cast(:count as integer), :section, clock_timestamp(), false)",
            count=count,
            section=section,
        )
        server.rows("rollback")

    assert set(chosen) <= set(offered)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(offered))
    longest = sorted((len(run) for run in runs), reverse=True)
    fewest = next((n for n in range(len(runs) + 1) if sum(longest[:n]) >= len(chosen)), 0)
    assert len([n for n in chosen if not any(n - 1 in chosen and {n - 1, n} <= set(run) for run in runs)]) == fewest
    if fewest == 1:
        assert chosen[0] == next(run[0] for run in runs if len(run) >= len(chosen))


# --- what holds for every hold -------------------------------------------------------------------------------------


def test_a_best_hold_is_a_hold(shop: Shop, audit: Callable[[], Verdict]) -> None:
    assert shop.map_state(1) == "available"

    held = shop.hold_best(2)

    assert shop.map_state(1) == "held"
    assert shop.ledger(1) == ["held"]
    assert shop.events(held) == ["reservation.held"]
    assert shop.pay(held).payment["amount"] == 2 * PRICE
    assert audit().violations == SOUND


def test_the_same_key_gets_the_same_seats(shop: Shop) -> None:
    key = new_key()
    held = shop.hold_best(2, key=key)
    shop.hold([3, 4], "somebody")

    assert shop.hold_best(2, key=key) == held
    with pytest.raises(KeyReused):
        shop.hold_best(1, key=key)
    with pytest.raises(KeyReused):
        shop.hold([1, 2], key=key)


@pytest.mark.parametrize("count", [0, 5, -1])
def test_a_senseless_count_is_refused(shop: Shop, count: int) -> None:
    with pytest.raises(BadRequest):
        shop.hold_best(count)


def test_too_few_left_says_how_many_and_holds_none(shop: Shop) -> None:
    shop.hold([1, 2, 3, 4], "first")
    shop.hold([5, 6, 7, 8], "second")

    with pytest.raises(TooFewSeatsLeft) as refused:
        shop.hold_best(3, "third")

    assert refused.value.members == {"seats_left": 2}
    assert shop.ledger(9) == shop.ledger(10) == []


def test_refusals_are_those_of_any_hold(shop: Shop) -> None:
    other = Shop.open()
    with pytest.raises(ScheduleUnknown):
        booking.seats.hold_best_seats(shop.attempt("someone"), 2**62, 1)
    with pytest.raises(PassOfAnotherConcert):
        booking.seats.hold_best_seats(other.attempt("someone"), shop.concert_id, 1)
    shop.hold_best(3)
    with pytest.raises(OverLimit) as refused:
        shop.hold_best(2)
    assert refused.value.members == {"limit": 4, "has": 3}
    shopper = shop.shopper("gone")
    primary().rows(
        "select end_admission(:pass_id, cast(:concert_id as bigint), :person, 'left', clock_timestamp())",
        pass_id=shopper.pass_id,
        concert_id=shop.concert_id,
        person=shopper.person,
    )
    with pytest.raises(TurnOver):
        shop.hold_best(1, "gone")
    primary().rows("update concert set sales_closed_at = now() where id = :id", id=shop.concert_id)
    with pytest.raises(SaleClosed):
        shop.hold_best(1)


# --- others at the same time ---------------------------------------------------------------------------------------


def test_seats_that_somebody_is_taking_are_passed_over_without_waiting(shop: Shop) -> None:
    with locked_seats(shop.concert_id, [1, 4]):
        assert shop.hold_best(2, "first")["seats"] == [2, 3]
        assert shop.hold_best(3, "second")["seats"] == [5, 6, 7]
    with locked_seats(shop.concert_id, [8]):
        assert shop.hold_best(2, "third")["seats"] == [9, 10]


def test_what_is_left_beside_a_seat_that_somebody_is_taking_is_a_smaller_piece(shop: Shop) -> None:
    shop.hold([3, 6], "first")
    shop.hold([7, 8, 9, 10], "second")
    with locked_seats(shop.concert_id, [2]):
        assert shop.hold_best(3, "third")["seats"] == [1, 4, 5]


def test_the_last_seats_are_waited_for_and_not_refused(shop: Shop) -> None:
    """Somebody has the last seats locked: they are neither gone nor free until that transaction ends."""
    shop.hold([1, 2, 3, 4], "first")
    shop.hold([5, 6, 7, 8], "second")
    with locked_seats(shop.concert_id, [9]) as other, ThreadPoolExecutor(1) as asking:
        answer = asking.submit(lambda: shop.hold_best(2, "third")["seats"])
        wait_until_somebody_waits(other)
        other.rows("rollback")

        assert answer.result() == [9, 10]


def test_who_waited_in_vain_is_told_how_many_are_left(shop: Shop) -> None:
    shop.hold([1, 2, 3, 4], "first")
    shop.hold([5, 6, 7, 8], "second")
    with locked_seats(shop.concert_id, [9]) as other, ThreadPoolExecutor(1) as asking:
        answer = asking.submit(lambda: shop.hold_best(2, "third"))
        wait_until_somebody_waits(other)
        other.rows(
            "select hold_seats(:person, 'key', 'hash', :id, 'pass', :id, '{9}', 300, 900, 'test')",
            person=shop.shopper("quicker").person,
            id=shop.concert_id,
        )
        other.rows("commit")
        with pytest.raises(TooFewSeatsLeft) as refused:
            answer.result()

    assert refused.value.members == {"seats_left": 1}
    assert shop.ledger(10) == []


def test_without_a_second_patient_look_the_last_seats_are_refused_for_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("booking.seats.holds._CHOICES_MAX", 1)
    shop.hold([1, 2, 3, 4], "first")
    shop.hold([5, 6, 7, 8], "second")

    with locked_seats(shop.concert_id, [9]), pytest.raises(DatabaseBusy):
        shop.hold_best(2, "third")


# --- races ---------------------------------------------------------------------------------------------------------


def ask_at_once(people: int, ask: Callable[[int], list[int]]) -> tuple[list[list[int]], Counter[str]]:
    """So many ask at the same moment, each over a connection of their own: the seats given, the refusals."""
    started = threading.Barrier(people)

    def attempt(n: int) -> list[int] | str:
        primary().rows("select 1")  # an environment that is warm
        started.wait()
        try:
            return ask(n)
        except Refusal as refused:
            return refused.slug
        finally:
            primary().close()

    with ThreadPoolExecutor(people) as crowd:
        answers = list(crowd.map(attempt, range(people)))
    given = [answer for answer in answers if isinstance(answer, list)]
    return given, Counter(answer for answer in answers if isinstance(answer, str))


@pytest.mark.race
@pytest.mark.parametrize(
    ("people", "count", "seats"), [(2, 2, 4), (10, 1, 10), (30, 2, 60), (100, 1, 100), (25, 4, 100)]
)
def test_as_many_as_there_is_room_for_all_get_seats_each_seat_once(
    people: int, count: int, seats: int, audit: Callable[[], Verdict]
) -> None:
    shop = Shop.open(seats=seats)
    before = deadlocks()

    given, refused = ask_at_once(people, lambda n: shop.hold_best(count, f"person {n}")["seats"])

    assert refused == {}
    assert sorted(number for seats in given for number in seats) == list(range(1, seats + 1))
    assert deadlocks() == before
    assert audit().violations == SOUND


@pytest.mark.race
def test_more_than_there_is_room_for_sell_it_out_and_only_then_are_refused(audit: Callable[[], Verdict]) -> None:
    shop = Shop.open(seats=20)

    given, refused = ask_at_once(60, lambda n: shop.hold_best(1, f"person {n}")["seats"])

    assert sorted(number for seats in given for number in seats) == list(range(1, 21))
    assert refused == {"too-few-seats-left": 40}
    assert audit().violations == SOUND


@pytest.mark.race
def test_mixed_with_people_who_choose_numbers_nobody_gets_anothers_seat(audit: Callable[[], Verdict]) -> None:
    shop = Shop.open(seats=60)
    shop.arrange(*(("A", str(row), 10) for row in range(1, 7)))
    before = deadlocks()

    def ask(n: int) -> list[int]:
        if n % 3 == 0:
            numbers = [60 - n, 59 - n]
            return shop.hold(numbers, f"person {n}")["seats"]  # type: ignore[no-any-return]
        return shop.hold_best(n % 4 + 1, f"person {n}")["seats"]  # type: ignore[no-any-return]

    given, refused = ask_at_once(40, ask)

    sold = [number for seats in given for number in seats]
    assert len(sold) == len(set(sold))
    assert set(refused) <= {"too-few-seats-left", "seat-taken"}
    assert deadlocks() == before
    assert audit().violations == SOUND


@pytest.mark.race
def test_one_persons_twins_get_one_hold(shop: Shop, audit: Callable[[], Verdict]) -> None:
    key = new_key()

    given, refused = ask_at_once(10, lambda _: shop.hold_best(2, key=key)["seats"])

    assert given == [[1, 2]] * 10
    assert refused == {}
    assert shop.ledger(1) == ["held"]
    assert audit().violations == SOUND


@pytest.mark.race
def test_one_person_asking_many_times_stays_within_the_limit(audit: Callable[[], Verdict]) -> None:
    shop = Shop.open(seats=40)

    given, refused = ask_at_once(10, lambda _: shop.hold_best(2)["seats"])

    assert len(given) == 2
    assert refused == {"over-limit": 8}
    assert audit().violations == SOUND


# --- negative controls ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unguarded_url(make_database: Callable[[str], str]) -> str:
    """A database of its own, whose functions a test may weaken."""
    return make_database("encore_unguarded_best")


@pytest.fixture
def weaken(unguarded_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Work on a database of its own; ``weaken(choose_best_seats="guard")`` takes a guard out of a function there."""
    monkeypatch.setenv("ENCORE_DATABASE_URL", unguarded_url)
    settings.cache_clear()

    def install(**guards: str) -> None:
        for name in ("choose_best_seats", "change_seats", "hold_seats"):
            source = (_FUNCTIONS / f"{name}.sql").read_text()
            guard = guards.get(name, "")
            assert guard in source, "the guard is no longer written like this: mend this negative control"
            source = source.replace(guard, "") if guard else source
            if name == "hold_seats":  # widens the window between reading the seats and writing them
                window = "    v_expires_at := v_now + make_interval"
                assert window in source
                source = source.replace(window, "    perform pg_sleep(0.1);\n" + window)
            primary().rows(source)

    yield install
    settings.cache_clear()


_ROW_LOCKS = {"choose_best_seats": "            for update of s skip locked\n", "hold_seats": "        for update\n"}
_VERSION_CHECK = {"change_seats": " and s.version = w.version"}


def race_for_two_seats() -> tuple[Shop, list[list[int]], Counter[str]]:
    shop = Shop.open(wait=False)
    given, refused = ask_at_once(8, lambda n: shop.hold_best(2, f"person {n}")["seats"])
    return shop, given, refused


@pytest.mark.race
@pytest.mark.parametrize("guards", [_ROW_LOCKS, _VERSION_CHECK], ids=["by versions", "by row locks"])
def test_each_guard_alone_is_enough(weaken: Callable[..., None], guards: dict[str, str]) -> None:
    weaken(**guards)

    shop, given, refused = race_for_two_seats()

    assert given
    assert set(refused) <= {"too-few-seats-left", "database-busy"}
    sold = [number for seats in given for number in seats]
    assert len(sold) == len(set(sold))
    assert all(shop.ledger(number) == ["held"] for number in sold)


@pytest.mark.race
def test_without_both_guards_seats_are_sold_twice_and_the_audit_says_so(
    weaken: Callable[..., None], unguarded_url: str
) -> None:
    weaken(**_ROW_LOCKS, **_VERSION_CHECK)

    shop, given, _ = race_for_two_seats()

    assert given.count([1, 2]) > 1, "the race proves nothing: without any guard nobody got the same seats"
    with closing(Auditor(unguarded_url, [])) as auditor:
        violations = auditor.audit().violations
    assert any(f"seat 1 of schedule {shop.concert_id}" == subject for subject, _ in violations["I1"])
    assert {name for name, found in violations.items() if found} == {"I1", "I7"}


def test_without_skipping_locked_seats_somebody_who_dawdles_stops_everybody(
    weaken: Callable[..., None], use_settings: Callable[..., None]
) -> None:
    use_settings(lock_timeout_ms=100)
    primary().close()  # the timeout is the connection's
    weaken(choose_best_seats=" skip locked")
    shop = Shop.open(wait=False)

    with locked_seats(shop.concert_id, [1]), pytest.raises(DatabaseBusy):
        shop.hold_best(2)
    primary().close()
