"""I4 and I5, the waiting line's invariants: what the audit accepts, and that it reports each rule that is broken."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise

import pytest

from booking.operations.audit import Auditor
from booking.platform.postgres import primary
from booking.platform.settings import settings
from booking.queue import end_turn, read_pass
from booking.queue.admissions import copy_admissions
from support.line import Line

OpenLine = Callable[..., Line]
Look = Callable[[], set[str]]


@pytest.fixture
def look(make_database: Callable[[str], str], use_settings: Callable[..., object]) -> Iterator[Look]:
    """The names of the invariants that are broken in a fresh database, after the line has been copied there."""
    url = make_database("encore_broken_line")
    use_settings(database_url=url)
    auditor = Auditor(url, [])

    def look() -> set[str]:
        copy_admissions()
        return {name for name, found in auditor.audit().violations.items() if found}

    yield look
    auditor.close()


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


def a_day_at_the_line(line: Line) -> None:
    """People come in, leave, pay, lapse, are passed over and return, and the operator turns the gate."""
    for name in names(12):
        line.join(name)
    line.leave("p0")
    shopper = read_pass(line.poll("p1").shop_pass)
    end_turn(line.concert_id, shopper.person, shopper.pass_id, "paid")
    line.gate("capacity", 1)
    line.leave("p2")
    line.clock.advance(30)
    line.poll("p11")  # everybody else has missed their polls
    line.gate("capacity", 4)
    line.clock.advance(1)
    line.poll("p11")
    line.poll("p6")  # back at an earlier place
    line.clock.advance(700)
    line.poll("p8")  # all turns have lapsed


def test_a_day_at_the_line_passes(look: Look, open_line: OpenLine) -> None:
    line = open_line(capacity=3)
    a_day_at_the_line(line)

    assert look() == set()
    admitted = line.admissions()
    assert {turn["end_reason"] for turn in admitted} >= {"left", "paid", "lapsed", None}
    assert any(later["place"] < earlier["place"] for earlier, later in pairwise(admitted))


def test_i4_without_its_guard(look: Look, open_line: OpenLine, break_script: Callable[[str, str], None]) -> None:
    break_script("gate.capacity - redis.call('ZCARD', INSIDE)", "gate.capacity")
    line = open_line(capacity=3)
    for name in names(5):
        line.join(name)

    assert look() == {"I4"}


def test_i4_a_turn_that_never_ended(look: Look, open_line: OpenLine) -> None:
    line = open_line(capacity=1)
    line.join("ann")
    line.leave("ann")
    line.join("bob")
    assert look() == set()
    primary().rows("update admission set ended_at = null, ended_after = null where ended_at is not null")

    assert look() == {"I4"}


def test_i4_judges_by_the_settings_that_each_admission_names(look: Look, open_line: OpenLine) -> None:
    line = open_line(capacity=2)
    line.join("ann")
    line.join("bob")
    line.gate("capacity", 1)  # fewer than are inside: nobody is thrown out, and nobody comes in
    line.leave("ann")
    line.join("cid")
    assert look() == set()
    primary().rows("update admission set gate_change_id = (select max(id) from gate_change)")

    assert look() == {"I4"}


@pytest.mark.parametrize("change", ["null", "0", "(select min(id) from gate_change)"])
def test_i4_an_admission_under_no_settings_of_its_concert(look: Look, open_line: OpenLine, change: str) -> None:
    open_line().join("somebody")
    line = open_line()
    line.join("ann")
    assert look() == set()
    primary().rows(
        f"update admission set gate_change_id = {change} where concert_id = :concert_id", concert_id=line.concert_id
    )

    assert look() == {"I4"}


def test_i4_an_end_that_only_postgres_knows_counts_by_its_time(look: Look, open_line: OpenLine) -> None:
    line = open_line(capacity=1)
    paid = read_pass(line.join("ann").shop_pass)
    line.join("bob")
    copy_admissions()
    end = "select end_admission(:pass_id, :concert_id, :person, 'paid', clock_timestamp())"
    primary().rows(end, pass_id=paid.pass_id, concert_id=line.concert_id, person=paid.person)
    line.forget()  # Redis never hears of it
    line.poll("bob")
    line.clock.advance(700)
    assert line.poll("bob").state == "admitted"
    assert look() == set()
    primary().rows("update admission set ended_at = ended_at + interval '1 hour', expires_at = expires_at + '1 hour'")

    assert look() == {"I4"}


def test_i5_let_in_from_the_wrong_end(
    look: Look, open_line: OpenLine, break_script: Callable[[str, str], None]
) -> None:
    line = open_line(capacity=1)
    for name in names(4):
        line.join(name)
    break_script("redis.call('ZRANGE', WAITING, 0, math.min(", "redis.call('ZREVRANGE', WAITING, 0, math.min(")
    for last in ("p0", "p3"):
        line.leave(last)

    assert look() == {"I5"}


def test_i5_a_return_that_is_not_recorded(look: Look, open_line: OpenLine) -> None:
    a_day_at_the_line(open_line(capacity=3))
    assert look() == set()
    primary().rows("update admission set entered_after = 0")

    assert look() == {"I5"}


def test_i5_compares_the_places_of_one_epoch_only(look: Look, open_line: OpenLine) -> None:
    line = open_line()
    for name in ("ann", "bob"):
        line.join(name)
    copy_admissions()
    swap = "update admission set place = (select sum(place) from admission) - place"
    primary().rows(swap)
    assert look() == {"I5"}
    primary().rows("update admission set epoch = 2 where number = (select max(number) from admission)")

    assert look() == set()


def test_settling_waits_for_what_the_line_has_not_recorded_yet(look: Look, open_line: OpenLine) -> None:
    auditor = Auditor(settings().database_url, [])
    seen: list[int] = []
    try:
        open_line().join("ann")
        assert not auditor.settle(0.1, lambda waiting: seen.append(waiting["turns to record"]))
        assert seen and set(seen) == {2}  # let in, and claimed
        copy_admissions()
        assert auditor.settle(0.1, lambda waiting: None)
    finally:
        auditor.close()


def test_a_redis_that_is_away_does_not_keep_the_audit_from_looking(
    look: Look, open_line: OpenLine, use_settings: Callable[..., AbstractContextManager[None]]
) -> None:
    open_line().join("ann")
    copy_admissions()
    auditor = Auditor(settings().database_url, [])
    try:
        with use_settings(queue_redis_url="redis://127.0.0.1:1/0"):
            assert auditor.audit().passed
    finally:
        auditor.close()
