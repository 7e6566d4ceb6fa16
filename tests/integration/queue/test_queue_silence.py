"""Redis was away and has kept its data: for a while nobody could ask the line anything, and nobody loses by it."""

import pytest

from booking.platform.redis import redis
from booking.platform.redis_keys import line_key
from booking.queue import read_pass
from booking.queue.admissions import keep_lines_moving

PASS_LIFE_S = 600


def let_in_next(line) -> None:
    """The background loop lets in whoever is next, who has not fetched the pass yet."""
    keep_lines_moving()
    assert redis("queue").hlen(line_key(line.concert_id, "passes")) == line.inside()


def test_who_was_let_in_just_before_can_still_fetch_the_pass(open_line, clock):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    line.leave("ann")
    let_in_next(line)
    clock.advance(70, silent=True)

    assert line.poll("bob").state == "admitted"


def test_a_pass_that_nobody_fetches_lapses_a_claim_window_after_the_silence(open_line, clock):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    line.leave("ann")
    let_in_next(line)
    clock.advance(70, silent=True)
    line.join("cid")
    clock.advance(59)
    assert line.poll("cid").state == "waiting"
    clock.advance(2)

    assert line.poll("cid").state == "admitted"


def test_a_claimed_pass_does_not_live_longer(open_line, clock):
    line = open_line(capacity=1)
    before = read_pass(line.join("ann").shop_pass)
    clock.advance(300, silent=True)

    assert read_pass(line.poll("ann").shop_pass) == before


def test_the_first_to_come_back_passes_over_nobody(open_line, clock):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid", "dee"):
        line.join(name)
    clock.advance(PASS_LIFE_S + 1, silent=True)  # so there is room for the first to come back
    assert line.poll("dee").state == "waiting"
    keep_lines_moving()
    clock.advance(2)
    assert [line.poll(name).ahead for name in ("cid", "bob")] == [1, 0]
    clock.advance(4)

    assert line.poll("dee").state == "waiting"
    assert line.poll("bob").state == "admitted"


def test_who_does_not_come_back_is_passed_over_after_the_hold(open_line, clock):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid"):
        line.join(name)
    clock.advance(PASS_LIFE_S + 1, silent=True)
    line.poll("cid")
    clock.advance(6)

    assert line.poll("cid").state == "admitted"


def test_a_line_that_nobody_waited_in_is_not_held(open_line, clock):
    line = open_line()
    line.join("ann")
    clock.advance(60, silent=True)

    assert line.join("bob").state == "admitted"


def test_a_few_seconds_are_no_silence(open_line, clock):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    clock.advance(PASS_LIFE_S - 1)
    clock.advance(4, silent=True)

    assert line.poll("bob").state == "admitted"


def test_whoever_asks_rarely_comes_in_without_the_background_loop(open_line, clock):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    clock.advance(PASS_LIFE_S + 1)
    states = []
    for _ in range(3):  # as a tab asleep does
        clock.advance(30, silent=True)
        states.append(line.poll("bob").state)

    assert states[-1] == "admitted"


# ---- the clock goes back, as with a server that takes another's place ----


@pytest.mark.parametrize("back_s", [2, 60, 3600])
def test_a_clock_that_goes_back_stops_no_line(open_line, clock, back_s):
    clock.stop()
    line = open_line(rate_per_s=1, opens_in_s=-2 * 3600)
    names = ["ann", "bob", "cid", "dee"]
    for name in names:
        line.join(name)
    clock.advance(-back_s, silent=True)
    for _ in range(9):  # a pause in which all come back, and one a second
        for name in names:
            line.poll(name)
        clock.advance(1, silent=True)

    assert line.inside() == len(names)


def test_after_a_clock_has_gone_back_the_first_to_come_passes_over_nobody(open_line, clock):
    clock.stop()
    line = open_line(capacity=2, opens_in_s=-2 * 3600)
    for name in ("ann", "bob", "cid", "dee"):
        line.join(name)
    clock.advance(-60, silent=True)
    line.gate("capacity", 3)
    assert line.poll("dee").state == "waiting"
    assert line.poll("cid").ahead == 0
    clock.advance(6, silent=True)

    assert line.poll("dee").state == "waiting"
    assert line.poll("cid").state == "admitted"
