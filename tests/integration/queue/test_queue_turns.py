"""A person's way through the line, on real servers: places, admission, claims, ends, and what the record says of it."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from booking.platform.postgres import primary
from booking.platform.redis import RedisAway, redis
from booking.platform.redis_keys import line_key
from booking.platform.settings import settings
from booking.queue import end_turn, leave_line, position, read_pass, read_token, set_sold_out
from booking.queue.admissions import copy_admissions, keep_lines_moving
from booking.queue.line import LineClosed, SalesNotOpen, SoldOut, TurnOver, join_line
from booking.queue.restore import ConcertUnknown
from booking.queue.tokens import TokenInvalid, sign_token
from support.redis import tell_masters


def test_first_person_is_let_in_at_once(open_line):
    turn = open_line().join("ann")
    assert (turn.state, turn.created, turn.position, turn.ahead) == ("admitted", True, 0, 0)
    shopper = read_pass(turn.shop_pass)
    assert shopper.person == read_token(turn.token).person
    assert turn.body()["pass"] == turn.shop_pass


def test_line_is_ordered_by_joining(open_line):
    line = open_line(capacity=1)
    turns = [line.join(name) for name in ("ann", "bob", "cid", "dee")]
    assert [turn.position for turn in turns] == [0, 1, 2, 3]
    assert turns[3].ahead == 2
    places = [read_token(turn.token).place for turn in turns]
    assert places == sorted(set(places))


def test_joining_again_keeps_the_place(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    first, _, again = line.join("bob"), line.join("cid"), line.join("bob")
    assert first.created and not again.created
    assert read_token(first.token).place == read_token(again.token).place
    assert again.position == 1


def test_person_inside_gets_the_same_pass_from_join_and_poll(open_line):
    line = open_line()
    turn = line.join("ann")
    assert line.join("ann").shop_pass == turn.shop_pass == line.poll("ann").shop_pass
    assert not line.join("ann").created


def test_many_at_once_never_exceed_the_capacity(open_line):
    line = open_line(capacity=30, rate_per_s=10_000)

    def visit(number: int) -> bool:
        turn = line.join(f"p{number}")
        entered = turn.state == "admitted"
        if entered and number % 2:
            leave_line(turn.token)
        return entered

    with ThreadPoolExecutor(50) as people:
        entered = sum(people.map(visit, range(2000)))
    assert entered >= 30
    assert line.inside() == 30
    assert _most_inside(line) == 30


def _most_inside(line) -> int:
    """The highest number of people inside at any admission, by the record alone."""
    copy_admissions()
    return primary().value(
        """
        select max(inside) from (
            select (select count(*) from admission other where other.concert_id = mine.concert_id
                    and other.number <= mine.number and coalesce(other.ended_at, other.expires_at) > mine.admitted_at
                   ) as inside
            from admission mine where mine.concert_id = :concert_id) as moments
        """,
        concert_id=line.concert_id,
    )


def test_rate_limits_how_fast_people_come_in(open_line):
    line = open_line(capacity=100, rate_per_s=5)
    for number in range(20):
        line.join(f"p{number}")
    assert line.inside() in (5, 6)  # one second's worth at once, and one more if the joins took 0.2 s
    line.clock.advance(0.6)
    keep_lines_moving()
    assert 8 <= line.inside() <= 10


@pytest.mark.parametrize(
    ("shut", "reopen"),
    [(("pause",), ("resume",)), (("capacity", 0), ("capacity", 1)), (("rate", 0), ("rate", 200))],
)
def test_gate_that_lets_nobody_in(open_line, shut, reopen):
    line = open_line(capacity=1)
    line.join("ann")
    line.gate(*shut)
    leave_line(line.tokens["ann"])
    assert line.join("bob").state == "waiting"
    line.clock.advance(1)
    assert line.gate(*reopen).admitted == 1
    assert line.poll("bob").state == "admitted"


def test_unclaimed_turn_lapses_and_the_next_comes_in(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    line.join("cid")
    leave_line(line.tokens["ann"])  # bob is let in and does not know
    line.clock.advance(settings().claim_window_s + 1)
    assert line.poll("cid").state == "admitted"
    with pytest.raises(TurnOver) as refused:
        line.poll("bob")
    assert refused.value.members == {"reason": "lapsed"}
    assert line.join("bob").created
    assert [turn["end_reason"] for turn in line.admissions()] == ["left", "lapsed", None]


def test_claim_gives_the_pass_its_whole_life_once(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    leave_line(line.tokens["ann"])
    line.clock.advance(settings().claim_window_s - 5)
    claimed = line.poll("bob")
    line.clock.advance(settings().pass_ttl_s - 5)
    assert line.poll("bob").pass_expires_at == claimed.pass_expires_at
    line.clock.advance(10)
    with pytest.raises(TurnOver):
        line.poll("bob")


def test_paying_frees_the_slot_and_uses_the_token_up(open_line):
    line = open_line(capacity=1)
    shopper = read_pass(line.join("ann").shop_pass)
    line.join("bob")
    end_turn(line.concert_id, shopper.person, "another pass", "paid")
    assert line.inside() == 1 and line.poll("bob").state == "waiting"
    end_turn(line.concert_id, shopper.person, shopper.pass_id, "paid")
    end_turn(line.concert_id, shopper.person, shopper.pass_id, "paid")
    assert line.poll("bob").state == "admitted"
    with pytest.raises(TurnOver):
        line.poll("ann")
    again = line.join("ann")
    assert again.created and again.state == "waiting"
    assert line.poll("ann").position == 1


def test_leaving_the_line(open_line):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid"):
        line.join(name)
    leave_line(line.tokens["bob"])
    leave_line(line.tokens["bob"])
    assert line.poll("cid").position == 1
    with pytest.raises(TurnOver):
        line.poll("bob")


def test_absent_person_is_passed_over_and_keeps_the_place(open_line):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid", "dee"):
        line.join(name)
    line.clock.advance(30)  # all were told to poll after about a second
    line.poll("cid")
    line.poll("dee")
    leave_line(line.tokens["ann"])
    assert line.poll("cid").state == "admitted"  # bob was absent
    back = line.poll("bob")
    assert (back.state, back.position) == ("waiting", 1)  # ahead of dee
    assert read_token(back.token).place < read_token(line.tokens["cid"]).place
    leave_line(line.tokens["cid"])
    assert line.poll("bob").state == "admitted"
    admitted = line.admissions()
    assert admitted[2]["place"] < admitted[1]["place"]
    assert admitted[2]["entered_after"] == admitted[1]["number"]


def test_absent_person_who_joins_again_keeps_the_place(open_line):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid"):
        line.join(name)
    line.clock.advance(30)
    line.poll("cid")
    turn = line.join("bob")
    assert (turn.created, turn.position) == (False, 1)


def test_sold_out_answers_the_line_and_a_refund_reopens_it(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    set_sold_out(line.concert_id, True)
    for ask in (lambda: line.poll("bob"), lambda: line.join("new")):
        with pytest.raises(SoldOut) as refused:
            ask()
        assert refused.value.members == {}
    assert line.poll("ann").state == "admitted"  # who is inside goes on
    set_sold_out(line.concert_id, False)
    assert line.poll("bob").position == 1


def test_sold_out_gives_a_buyer_their_token(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    primary().rows(
        "insert into reservation (concert_id, schedule_id, person, pass_id, seats, total, currency, status, created_at,"
        " expires_at, hard_cap_at) values (:id, 1, :person, 'x', '{1}', 1, 'KRW', 'held', now(), now(), now())",
        id=line.concert_id,
        person=line.person("buyer"),
    )
    set_sold_out(line.concert_id, True)
    with pytest.raises(SoldOut) as refused:
        line.join("buyer")
    assert read_token(refused.value.members["token"]).person == line.person("buyer")


def test_backstop_repeats_the_state_of_the_sale(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    primary().rows(
        "insert into schedule_sales (schedule_id, concert_id, seats_total, seats_sold) values (:id, :id, 5, 5)",
        id=line.concert_id,
    )
    keep_lines_moving()
    with pytest.raises(SoldOut):
        line.poll("bob")


def test_backstop_lets_people_in_without_polls(open_line):
    line = open_line(rate_per_s=1)
    line.join("ann")
    line.join("bob")
    assert line.inside() == 1
    line.clock.advance(1)
    assert keep_lines_moving() >= 1
    assert line.inside() == 2


@pytest.mark.parametrize("is_readable", [True, False], ids=["a fault of its redis", "an entry nobody can read"])
def test_a_line_in_trouble_keeps_no_other_waiting(open_line, is_readable):
    troubled, other = open_line(), open_line(rate_per_s=1)
    troubled.join("ann")
    for name in ("ann", "bob", "cid"):
        other.join(name)
    other.clock.advance(1)  # bob may come in, and nobody polls
    if is_readable:
        seen = line_key(troubled.concert_id, "seen")
        redis("queue").delete(seen)
        redis("queue").set(seen, "no set")
    else:
        entry = {"type": "admit", "pass_id": "p", "person": "q", "at_us": "soon"}
        redis("queue").xadd(line_key(troubled.concert_id, "admissions"), entry)

    with pytest.raises((RedisAway, ValueError)):
        keep_lines_moving()

    assert redis("queue").hlen(line_key(other.concert_id, "passes")) == 2
    assert redis("queue").xlen(line_key(other.concert_id, "admissions")) == 0


def test_closed_line_keeps_places(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    line.gate("message", "back at nine")
    line.gate("close")
    for ask in (lambda: line.poll("bob"), lambda: line.join("new")):
        with pytest.raises(LineClosed, match="back at nine"):
            ask()
    line.gate("message", "welcome")
    line.gate("open")
    turn = line.poll("bob")
    assert (turn.position, turn.message) == (1, "welcome")


def test_sales_not_open(open_line):
    line = open_line(opens_in_s=3600)
    with pytest.raises(SalesNotOpen) as refused:
        line.join("ann")
    assert refused.value.members["opens_at"].endswith("Z")
    assert 3590 <= refused.value.retry_after_s <= 3600


def test_unknown_concert():
    for _ in range(2):
        with pytest.raises(ConcertUnknown):
            join_line(2**62, "p" * 22)


def test_token_of_an_older_epoch_is_over(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    line.gate("restart")
    with pytest.raises(TurnOver):
        line.poll("bob")


def test_eta_follows_the_measured_speed(open_line):
    line = open_line(capacity=1000, rate_per_s=2)
    for number in range(100):
        line.join(f"p{number}")
    assert line.poll("p99").eta_s == pytest.approx(49, abs=1)
    for _ in range(20):  # the gate says 2 a second, the shop is full and one comes out each second
        line.clock.advance(1)
        line.gate("capacity", line.inside() + 1)
        assert line.poll("p99").state == "waiting"
    turn = line.poll("p99")
    assert turn.eta_s == pytest.approx(turn.position, rel=0.1)


def test_poll_time_grows_with_the_distance(open_line):
    line = open_line(capacity=1, rate_per_s=10)
    for number in range(100):
        line.join(f"p{number}")
    near, far = line.poll("p1"), line.poll("p99")
    assert 1000 <= near.poll_after_ms <= 1200
    assert 0.7 * 99 / 10 * 1000 <= far.poll_after_ms <= 0.7 * 99 / 10 * 1200 + 1
    assert far.headers()["Retry-After"] in ("7", "8", "9")


def test_one_trip_for_a_join_and_for_a_poll(open_line, redis_stack):
    line = open_line(capacity=1)
    for name in ("ann", "bob"):
        line.join(name)
    line.poll("bob")

    def calls() -> int:
        told = tell_masters(redis_stack, "INFO", "commandstats").values()
        return sum(int(calls) for text in told for calls in re.findall(rb"cmdstat_fcall:calls=(\d+)", text))

    before = calls()
    line.poll("bob")
    line.join("bob")
    assert calls() - before == 2


def test_copy_stores_turns_once_and_empties_the_stream(open_line):
    line = open_line()
    turn = line.join("ann")
    shopper = read_pass(turn.shop_pass)
    stream = line_key(line.concert_id, "admissions")
    entries = redis("queue").xrange(stream)
    assert copy_admissions() == 2
    assert redis("queue").xlen(stream) == 0
    for _, fields in entries:  # a copy that died after its commit: the entries come again
        redis("queue").xadd(stream, fields)
    [stored] = line.admissions()
    assert (stored["number"], stored["place"], stored["person"]) == (shopper.number, shopper.place, shopper.person)
    assert int(stored["expires_at"].timestamp()) == shopper.expires_at
    assert stored["claimed_at"] is not None and stored["ended_at"] is None


def test_end_that_reached_postgres_first_stays(open_line):
    line = open_line()
    shopper = read_pass(line.join("ann").shop_pass)
    end = "select end_admission(:pass_id, :concert_id, :person, 'paid', cast('2026-01-02T03:04:05Z' as timestamptz))"
    primary().rows(end, pass_id=shopper.pass_id, concert_id=line.concert_id, person=shopper.person)
    leave_line(line.tokens["ann"])
    [stored] = line.admissions()
    assert (stored["end_reason"], stored["ended_at"].year, stored["ended_at"].day) == ("paid", 2026, 2)
    assert stored["number"] == shopper.number


def test_position_takes_the_token_as_text(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    token = line.join("bob").token
    assert position(token).token == token


@pytest.mark.parametrize(("left", "is_renewed"), [(0.6, False), (0.4, True)])
def test_a_token_that_has_lived_half_its_life_is_renewed_by_a_poll(open_line, left, is_renewed):
    line = open_line(capacity=1)
    line.join("ann")
    token = read_token(line.join("bob").token)
    of_bob = msgspec.structs.replace(token, expires_at=int(time.time() + left * settings().token_ttl_s))
    answered = position(sign_token(of_bob)).token
    assert msgspec.structs.replace(read_token(answered), expires_at=0) == msgspec.structs.replace(token, expires_at=0)
    assert (answered != sign_token(of_bob)) == is_renewed
    assert not is_renewed or read_token(answered).expires_at >= token.expires_at


def test_keys_rotate_while_people_wait_and_nobody_is_thrown_out(open_line, use_settings):
    line = open_line(capacity=1)
    old, new = settings().token_keys, f"k9:{'5a' * 32}"
    shopper = line.join("ann")
    line.join("bob")
    with use_settings(token_keys=f"{new},{old}"):
        assert line.poll("bob").position == 1
        assert line.join("cid").token.startswith("t.k9.")
        assert read_pass(shopper.shop_pass) == read_pass(line.poll("ann").shop_pass)  # another text, the same pass
        assert line.join("bob").token.startswith("t.k9.")
    with use_settings(token_keys=new):  # once the old key's papers are over it goes
        assert line.poll("bob").position == 1
        with pytest.raises(TokenInvalid):
            line.poll("ann")
