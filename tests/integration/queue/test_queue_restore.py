"""Redis loses the line: order, capacity and ended turns survive, in Postgres and in the people's tokens."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from booking.platform.postgres import primary
from booking.platform.redis import RedisAway, redis
from booking.platform.redis_keys import line_key
from booking.platform.settings import settings
from booking.queue import leave_line, read_pass, read_token
from booking.queue.admissions import copy_admissions, keep_lines_moving
from booking.queue.gate import show_gate
from booking.queue.line import LineClosed, TurnOver
from support.redis import runs_on


def test_first_start_needs_no_hold_and_is_recorded_once(open_line):
    line = open_line()
    with ThreadPoolExecutor(20) as people:
        turns = list(people.map(lambda number: line.join(f"p{number}"), range(100)))
    assert {turn.state for turn in turns} == {"admitted"}
    started = primary().value(
        "select count(*) from gate_change where concert_id = :id and action = 'started'", id=line.concert_id
    )
    assert started == 1


def test_defaults_of_a_line_nobody_has_configured(open_line):
    line = open_line()
    primary().rows(
        "insert into concert (id, title, artist, venue, sales_open_at) values (:id, 't', 'a', 'v', now())",
        id=-line.concert_id,
    )
    line.concert_id = -line.concert_id
    line.join("ann")
    gate = redis("queue").hgetall(line_key(line.concert_id, "gate"))
    assert (gate[b"capacity"], gate[b"rate"], gate[b"epoch"]) == (b"1000", b"200", b"1")


def test_order_survives_and_nobody_new_overtakes(open_line):
    line = open_line(capacity=1)
    names = [f"p{number}" for number in range(6)]
    for name in names:
        line.join(name)
    copy_admissions()
    line.forget()
    assert line.join("new").state == "waiting"
    for name in reversed(names[1:]):
        line.poll(name)
    assert [line.poll(name).position for name in names[1:]] == [1, 2, 3, 4, 5]
    assert line.poll("new").position == 6
    assert line.poll("p0").state == "admitted"
    assert read_token(line.tokens["new"]).place > read_token(line.tokens["p5"]).place


def test_hold_lets_nobody_in_and_then_the_line_goes_on(open_line):
    line = open_line(capacity=50, rate_per_s=1)
    line.join("ann")
    line.join("bob")
    copy_admissions()
    line.forget()
    held = line.poll("bob")
    assert held.state == "waiting" and held.eta_s > settings().rebuild_hold_s
    line.clock.advance(settings().rebuild_hold_s - 1)
    assert line.poll("bob").state == "waiting"
    line.clock.advance(2)
    assert line.poll("bob").state == "admitted"


def test_a_loss_while_the_line_is_closed_lets_nobody_new_overtake(open_line):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid"):
        line.join(name)
    copy_admissions()
    line.gate("close")
    line.forget()
    for name in ("bob", "cid"):  # they were told to ask again in half a minute
        with pytest.raises(LineClosed):
            line.poll(name)
    line.clock.advance(settings().rebuild_hold_s + 5)
    line.gate("open")
    assert line.join("new").ahead == 2
    line.leave("ann")
    assert line.join("new").ahead == 1
    assert [line.poll(name).state for name in ("bob", "cid")] == ["admitted", "waiting"]


def test_capacity_holds_over_a_loss(open_line):
    line = open_line(capacity=5, rate_per_s=1000)
    for number in range(12):
        line.join(f"p{number}")
    copy_admissions()
    line.forget()
    line.clock.advance(1)
    for number in range(12):
        line.poll(f"p{number}")
    line.clock.advance(60)
    admitted = [line.poll(f"p{number}").state == "admitted" for number in range(12)]
    assert admitted == [True] * 5 + [False] * 7
    assert line.inside() == 5


def test_unrecorded_admissions_count_as_inside_until_they_would_lapse(open_line):
    line = open_line(capacity=5, rate_per_s=2)
    line.join("ann")
    line.join("bob")
    copy_admissions()
    line.join("cid")  # the copy has not seen what follows
    line.forget()
    line.poll("cid")
    assert line.inside() == 5  # ann, bob, and room for 3 of rate x 2 s = 4
    line.clock.advance(settings().pass_ttl_s - 10)
    assert line.poll("cid").state == "waiting"
    line.clock.advance(11)
    assert line.poll("cid").state == "admitted"
    assert all(turn["end_reason"] == "lapsed" for turn in line.admissions()[:2])
    assert len(line.admissions()) == 3


@runs_on("single")  # it waits for the database's clock
def test_every_loss_counts_until_its_people_would_lapse(open_line, use_settings):
    line = open_line(capacity=10, rate_per_s=1)
    line.join("ann")
    copy_admissions()
    with use_settings(rebuild_hold_s=1):
        line.forget()
        line.poll("ann")
        assert line.inside() == 3  # ann, and two who may have come in unrecorded
        line.forget()
        line.poll("ann")
        assert line.inside() == 3  # nobody was let in since
        primary().value("select pg_sleep(1.1)")  # the hold is over, by the database's clock
        line.forget()
        line.poll("ann")
    assert line.inside() == 5
    losses = [change["action"] for change in show_gate(line.concert_id)["changes"]].count("restored")
    assert losses == 2


def test_a_claim_in_the_moment_that_was_lost_loses_nobody_the_pass(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    leave_line(line.tokens["ann"])  # lets bob in
    copy_admissions()
    before = line.poll("bob")  # the copy has not seen that bob fetched the pass, and goes on shopping
    line.forget()
    line.join("cid")
    line.clock.advance(settings().claim_window_s + 1)
    assert line.inside() == 1
    assert line.poll("bob").state == "admitted"
    assert read_pass(before.shop_pass).pass_id == read_pass(line.poll("bob").shop_pass).pass_id


@pytest.mark.race
@runs_on("cluster")
def test_a_rush_that_loses_redis_twice(open_line, use_settings, audit):
    """Real time, many threads: who polls as told stays in front of who comes later, the shop is never too full."""
    use_settings(pass_ttl_s=3, rebuild_hold_s=2)
    line = open_line(capacity=25, rate_per_s=500)
    stop = threading.Event()

    def keep_copying() -> None:
        while not stop.wait(0.2):
            keep_lines_moving()

    def visit(name: str, after_s: float) -> str:
        time.sleep(after_s)
        turn = keep_asking(lambda: line.join(name))
        while turn.state == "waiting":
            time.sleep(turn.poll_after_ms / 1000)
            turn = keep_asking(lambda: line.poll(name))
        time.sleep(0.2)
        keep_asking(lambda: line.leave(name))
        return read_pass(turn.shop_pass).pass_id

    def keep_asking[Answer](ask: Callable[[], Answer]) -> Answer:
        for _ in range(20):
            try:
                return ask()
            except RedisAway:  # somebody else was restoring the line for too long
                time.sleep(0.1)
        raise AssertionError("the line does not come back")

    with ThreadPoolExecutor(160) as people:
        backstop = people.submit(keep_copying)
        early = [people.submit(visit, f"early{number}", number / 100) for number in range(100)]
        time.sleep(1.5)
        line.forget()
        late = [people.submit(visit, f"late{number}", number / 100) for number in range(50)]
        time.sleep(1)
        line.forget()
        passes = {name: [each.result() for each in visits] for name, visits in (("early", early), ("late", late))}
        stop.set()
        backstop.result()
    copy_admissions()
    violations = audit().violations
    assert (violations["I4"], violations["I5"]) == ([], [])
    numbers = {name: [int(each.rpartition("-")[2], 16) for each in ids] for name, ids in passes.items()}
    assert max(numbers["early"]) < min(numbers["late"])


def test_turns_that_were_over_stay_over(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    leave_line(line.tokens["ann"])
    line.poll("bob")
    copy_admissions()
    line.forget()
    with pytest.raises(TurnOver):
        line.poll("ann")
    assert line.poll("bob").state == "admitted"


def test_pass_survives(open_line):
    line = open_line()
    before = line.join("ann").shop_pass
    copy_admissions()
    line.forget()
    assert line.poll("ann").shop_pass == before


def test_numbers_and_places_go_on_rising(open_line):
    line = open_line(capacity=2000, rate_per_s=1)
    before = read_pass(line.join("ann").shop_pass)
    copy_admissions()
    line.forget()
    line.join("bob")
    line.clock.advance(60)
    after = read_pass(line.poll("bob").shop_pass)
    assert after.number > before.number and after.place > before.place


def test_many_handlers_restore_at_once(open_line):
    line = open_line(capacity=10, rate_per_s=10_000)
    for number in range(100):
        line.join(f"p{number}")
    copy_admissions()
    line.forget()
    with ThreadPoolExecutor(30) as people:
        list(people.map(lambda number: line.poll(f"p{number}"), range(100)))
    line.clock.advance(60)
    states = [line.poll(f"p{number}").state for number in range(100)]
    assert states == ["admitted"] * 10 + ["waiting"] * 90


def test_sold_out_is_restored_from_the_sales(open_line):
    line = open_line(capacity=1)
    primary().rows(
        "insert into schedule_sales (schedule_id, concert_id, seats_total, seats_sold) values (:id, :id, 1, 1)",
        id=line.concert_id,
    )
    with pytest.raises(Exception, match="sold out"):
        line.join("ann")
