"""The gate at run time: what each command does to a running line, and that no failure loses a change."""

import pytest

from booking.platform.postgres import DatabaseAway, primary
from booking.platform.redis import RedisAway, redis
from booking.platform.redis_keys import LINE_NAMES, line_key
from booking.platform.settings import settings
from booking.queue import leave_line, read_token, scripts
from booking.queue.admissions import copy_admissions, keep_lines_moving
from booking.queue.gate import UnusableGateCommand, change_gate, show_gate
from booking.queue.line import LineClosed, TurnOver, set_gate
from booking.queue.restore import ConcertUnknown
from support.line import library_of


def in_redis(line, *fields):
    return redis("queue").hmget(line_key(line.concert_id, "gate"), *fields)


def changes(line):
    """The gate's history without what the line itself wrote, oldest first."""
    shown = show_gate(line.concert_id)["changes"]
    return [(change["action"], change["by"], change["reason"]) for change in reversed(shown) if change["by"]]


def test_capacity_lets_the_next_in_at_once(open_line):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid"):
        line.join(name)
    change = line.gate("capacity", 2)
    assert (change.in_force, change.admitted) == (True, 1)
    assert line.inside() == 2
    assert line.poll("cid").state == "waiting"


def test_fewer_than_are_inside_throws_nobody_out_and_lets_nobody_in(open_line):
    line = open_line(capacity=3)
    for name in ("ann", "bob", "cid", "dee"):
        line.join(name)
    line.gate("capacity", 1)
    line.leave("ann")
    line.leave("bob")
    assert line.inside() == 1 and line.poll("dee").state == "waiting"
    line.leave("cid")
    assert line.poll("dee").state == "admitted"


def test_rate_takes_parts_of_one(open_line):
    line = open_line(rate_per_s=0.5)
    for name in ("ann", "bob", "cid"):
        line.join(name)
    assert line.inside() == 1
    line.clock.advance(2)
    keep_lines_moving()
    assert line.inside() == 2


def test_every_command_is_kept_with_who_asked_and_why(open_line):
    line = open_line()
    change_gate(line.concert_id, "capacity", "50", by="ann@desk", reason="slow shop")
    change_gate(line.concert_id, "pause", by="responder")
    assert changes(line) == [("capacity", "ann@desk", "slow shop"), ("pause", "responder", "pause")]
    newest = show_gate(line.concert_id)["changes"][0]
    assert (newest["capacity"], newest["paused"], newest["rate"]) == (50, True, 200)


def test_a_command_does_not_fail_for_a_letter_in_its_reason(open_line):
    line = open_line()
    change_gate(line.concert_id, "pause", by="a\0b", reason="half \ud800 a letter")
    assert changes(line) == [("pause", "a b", "half ? a letter")]


def test_settings_survive_a_loss(open_line):
    line = open_line()
    line.join("ann")
    for command in (("capacity", 7), ("rate", 0.25), ("message", "soon"), ("pause",)):
        line.gate(*command)
    copy_admissions()
    line.forget()
    line.poll("ann")
    assert in_redis(line, "capacity", "rate", "message", "paused") == [b"7", b"0.25", b"soon", b"1"]


def test_a_change_made_while_redis_is_away_gets_through(open_line, use_settings):
    line = open_line(capacity=1)
    line.join("ann")
    line.join("bob")
    with use_settings(queue_redis_url="redis://127.0.0.1:1/0"):
        change = line.gate("capacity", 2)
        assert not change.in_force
        assert show_gate(line.concert_id)["redis"] == "away"
    assert in_redis(line, "capacity") == [b"1"]
    keep_lines_moving()
    assert in_redis(line, "capacity") == [b"2"]
    assert line.poll("bob").state == "admitted"


def test_a_change_before_the_line_starts_or_after_a_loss_is_what_it_begins_with(open_line):
    line = open_line()
    assert not line.gate("capacity", 3).in_force
    line.join("ann")
    assert in_redis(line, "capacity") == [b"3"]
    copy_admissions()
    line.forget()
    assert not line.gate("capacity", 4).in_force
    line.poll("ann")
    assert in_redis(line, "capacity") == [b"4"]


def test_an_older_change_that_arrives_late_is_ignored(open_line):
    line = open_line()
    line.join("ann")
    older = line.gate("capacity", 5)
    newer = line.gate("capacity", 6)
    assert not set_gate(line.concert_id, older.settings).in_force
    assert in_redis(line, "capacity") == [b"6"]
    for _ in range(2):  # a change that is told twice is one
        assert set_gate(line.concert_id, newer.settings).in_force
    assert in_redis(line, "capacity", "change_id") == [b"6", str(newer.settings["change_id"]).encode()]


def test_the_end_of_the_sale_reaches_a_running_line(open_line):
    line = open_line()
    line.join("ann")
    primary().rows("update concert set sales_closed_at = clock_timestamp() where id = :id", id=line.concert_id)
    keep_lines_moving()
    with pytest.raises(LineClosed):
        line.join("bob")
    primary().rows("update concert set sales_closed_at = null where id = :id", id=line.concert_id)
    keep_lines_moving()
    assert line.join("bob").state == "admitted"


def test_a_line_whose_sale_is_over_goes_with_the_last_of_its_tokens(open_line):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid", "dee"):
        line.join(name)
    line.clock.advance(60)
    line.poll("dee")
    line.leave("dee")
    keep_lines_moving()  # bob and cid are passed over
    names = [name for name in LINE_NAMES if redis("queue").exists(line_key(line.concert_id, name))]
    assert {"gate", "over", "away", "inside", "passes"} <= set(names)

    def kept_s():
        return [redis("queue").ttl(line_key(line.concert_id, name)) for name in names]

    redis("queue").expire(line_key(line.concert_id, "gate"), settings().token_ttl_s - 3601)
    keep_lines_moving()
    assert set(kept_s()) == {settings().token_ttl_s}
    primary().rows("update concert set sales_closed_at = now() - interval '25 h' where id = :id", id=line.concert_id)
    redis("queue").expire(line_key(line.concert_id, "gate"), 60)
    keep_lines_moving()
    assert min(kept_s()) <= 60


def test_a_restored_line_goes_too(open_line):
    line = open_line()
    line.join("ann")
    assert redis("queue").ttl(line_key(line.concert_id, "gate")) > 0


def test_another_opening_time_reaches_a_running_line(open_line):
    line = open_line(opens_in_s=3600)
    with pytest.raises(Exception, match="not opened"):
        line.join("ann")
    primary().rows("update concert set sales_open_at = now() where id = :id", id=line.concert_id)
    keep_lines_moving()
    assert line.join("ann").state == "admitted"


def test_open_opens_a_sale_before_its_time(open_line):
    line = open_line(opens_in_s=3600)
    with pytest.raises(Exception, match="not opened"):
        line.join("ann")
    assert line.gate("open").sale_opened
    line.clock.advance(1)
    assert line.join("ann").state == "admitted"
    opens_in_s = "select extract(epoch from sales_open_at - clock_timestamp()) from concert where id = :id"
    assert primary().value(opens_in_s, id=line.concert_id) <= 1


def test_open_of_a_closed_line_does_not_open_the_sale(open_line):
    line = open_line(opens_in_s=3600)
    line.gate("close")
    assert not line.gate("open").sale_opened
    with pytest.raises(Exception, match="not opened"):
        line.join("ann")


def test_restart_begins_a_new_epoch_and_who_is_inside_counts(open_line):
    line = open_line(capacity=2)
    for name in ("ann", "bob", "cid", "dee"):
        line.join(name)
    line.gate("restart")
    for name in ("cid", "dee"):
        with pytest.raises(TurnOver) as refused:
            line.poll(name)
        assert refused.value.members == {"reason": "epoch"}
    assert line.inside() == 2
    again = line.join("dee")
    assert (again.created, again.position, read_token(again.token).epoch) == (True, 1, 2)
    assert line.join("ann").state == "admitted"  # the pass is good, and so is the new token
    line.leave("ann")
    assert line.poll("dee").state == "admitted"


def test_a_gate_thrown_back_before_a_restart_throws_nobody_out(open_line, monkeypatch):
    monkeypatch.setattr("booking.queue.line._RESTORING_PAUSE_S", 0.001)  # all tries are in vain
    line = open_line(capacity=1)
    line.join("ann")
    gate, fields = line_key(line.concert_id, "gate"), ("epoch", "change_id", "version")
    before = dict(zip(fields, in_redis(line, *fields), strict=True))
    line.gate("restart")
    line.join("bob")
    # What a failover does that loses the last moments.
    redis("queue").hset(gate, mapping=before)
    redis("queue").delete(line_key(line.concert_id, "waiting"))
    for ask in (line.poll, line.leave):
        with pytest.raises(RedisAway):
            ask("bob")
    keep_lines_moving()
    assert line.poll("bob").position == 1


def let_in_by_two_libraries_at_one_rate(line, monkeypatch):
    """How many come in at 1 a second, in a second in which two libraries of the line are called, each by turns: another
    server, or another release, has memory of its own."""
    assert line.join("ann").state == "admitted"
    with library_of(monkeypatch, SHARED=scripts.SHARED + "-- another\n"):
        assert line.join("bob").state == "waiting"
        line.clock.advance(1)
        assert line.poll("bob").state == "admitted"
    return [line.join(name).state for name in ("cid", "dee")].count("admitted") + 1


def test_a_gate_is_taken_from_memory_only_as_long_as_nobody_else_has_written_it(open_line, monkeypatch):
    line = open_line(rate_per_s=1)
    line.clock.stop()
    assert let_in_by_two_libraries_at_one_rate(line, monkeypatch) == 1


def test_negative_control_without_versions_the_rate_counts_for_each_library(open_line, break_script, monkeypatch):
    break_script("return text(now) .. '.' .. writes", "return 'the same'")
    line = open_line(rate_per_s=1)
    line.clock.stop()
    assert let_in_by_two_libraries_at_one_rate(line, monkeypatch) == 2


def test_a_lost_line_remembers_who_is_inside_from_an_earlier_epoch(open_line):
    line = open_line(capacity=2, rate_per_s=1)
    line.join("ann")
    line.gate("restart")
    copy_admissions()
    line.forget()
    line.clock.advance(1)
    for name in ("bob", "cid", "dee"):
        line.join(name)
    line.clock.advance(60)
    assert sorted(line.poll(name).state for name in ("bob", "cid", "dee")) == ["waiting"] * 3
    assert line.inside() == 2  # ann, and one whom the loss may have let in
    assert line.join("ann").state == "admitted"


def test_a_restart_while_redis_is_away_is_no_first_start(open_line):
    line = open_line(capacity=50)
    line.join("ann")
    copy_admissions()
    line.forget()
    line.gate("restart")
    assert line.join("bob").state == "waiting"  # the rebuild hold
    assert line.inside() == 50


def test_show_says_how_the_line_stands(open_line):
    line = open_line(capacity=2)
    assert show_gate(line.concert_id)["live"] is None
    for name in ("ann", "bob", "cid", "dee", "eve"):
        line.join(name)
    line.clock.advance(30)
    line.poll("dee")
    keep_lines_moving()
    shown = show_gate(line.concert_id)
    live = shown["live"]
    assert (live["waiting"], live["absent"], live["inside"], live["passes"]) == (1, 2, 2, 2)
    assert live["last_place"] == read_token(line.tokens["eve"]).place
    assert live["admitting"] == 1 and live["eta_s"] > 0
    assert live["change_id"] == shown["settings"]["change_id"]
    assert shown["changes"][0]["action"] == "started"


def test_showing_changes_nothing(open_line):
    line = open_line()
    line.join("ann")
    before = redis("queue").hgetall(line_key(line.concert_id, "gate"))
    show_gate(line.concert_id)
    assert redis("queue").hgetall(line_key(line.concert_id, "gate")) == before


@pytest.mark.parametrize(
    ("action", "value"),
    [
        ("capacity", -1),
        ("capacity", 1_000_001),
        ("capacity", "many"),
        ("capacity", 1.5),
        ("capacity", None),
        ("capacity", True),
        ("capacity", "9" * 5000),
        ("rate", -0.1),
        ("rate", "0.0004"),
        ("rate", "1e-999999"),
        ("rate", 100_001),
        ("rate", "nan"),
        ("rate", "inf"),
        ("rate", None),
        ("message", "x" * 201),
        ("message", "two\nlines"),
        ("message", 7),
        ("pause", "1"),
        ("restart", 2),
        ("explode", None),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(open_line, action, value):
    line = open_line()
    with pytest.raises(UnusableGateCommand):
        line.gate(action, value)
    assert changes(line) == []


def test_an_unknown_concert_and_a_database_that_is_away(use_settings, open_line):
    for ask in (lambda: change_gate(2**62, "pause", by="a test"), lambda: show_gate(2**62)):
        with pytest.raises(ConcertUnknown):
            ask()
    line = open_line()
    with use_settings(database_url="postgresql://encore@127.0.0.1:1/encore"), pytest.raises(DatabaseAway):
        line.gate("pause")


@pytest.mark.parametrize("closed_s", [1, 25, 35])
def test_people_at_the_front_are_let_in_when_the_line_reopens(open_line, closed_s):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid"):
        line.join(name)
    line.gate("close")
    leave_line(line.tokens["ann"])
    for name in ("cid", "bob"):  # they are told to come back after 30 to 36 s
        with pytest.raises(LineClosed):
            line.poll(name)
    line.clock.advance(closed_s)
    line.gate("open")
    assert line.join("new").state == "waiting"
    assert (line.poll("bob").state, line.poll("cid").position) == ("admitted", 1)


@pytest.mark.parametrize(
    ("action", "value", "words"),
    [
        ("capacity", None, "capacity: needs a value, a whole number from 0 to 1,000,000"),
        ("capacity", "1.5", "capacity: must be a whole number from 0 to 1,000,000, not '1.5'"),
        ("rate", None, "rate: needs a value, people a second from 0 to 100,000"),
        ("rate", "1_0", "rate: must be people a second from 0 to 100,000, not '1_0'"),
        ("rate", "٣", "rate: must be people a second from 0 to 100,000, not '٣'"),
        ("rate", 0.0004, "rate: the slowest is 0.001 a second, or 0 for nobody, not 0.0004"),
        ("pause", "now", "pause: takes no value, and 'now' was given"),
        ("message", "a\nb", "message: must be one line of at most 200 characters"),
    ],
)
def test_a_value_that_makes_no_sense_is_told_as_it_should_be(open_line, action, value, words):
    with pytest.raises(UnusableGateCommand) as refused:
        open_line().gate(action, value)
    assert refused.value.detail == words


def test_the_first_to_come_back_to_a_line_that_reopens_pass_over_nobody(open_line):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid"):
        line.join(name)
    line.gate("close")
    for name in ("bob", "cid"):
        with pytest.raises(LineClosed) as told:
            line.poll(name)
        assert told.value.retry_after_s >= 30
    line.leave("ann")
    line.clock.advance(5)
    line.gate("open")
    assert (line.poll("cid").state, line.inside()) == ("waiting", 1)
    line.clock.advance(30)
    assert line.poll("bob").state == "admitted"


def test_who_does_not_come_back_to_a_line_that_reopens_keeps_a_slot_no_longer_than_the_claim_window(open_line):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid"):
        line.join(name)
    line.gate("close")
    for name in ("bob", "cid"):
        with pytest.raises(LineClosed):
            line.poll(name)
    line.leave("ann")
    line.gate("open")
    line.clock.advance(59)
    assert line.poll("cid").state == "waiting"
    line.clock.advance(2)
    assert line.poll("cid").state == "admitted"


def test_nobody_is_waited_for_who_has_left_a_line_that_reopens(open_line):
    line = open_line(capacity=1)
    for name in ("ann", "bob", "cid"):
        line.join(name)
    line.gate("close")
    line.clock.advance(20)
    with pytest.raises(LineClosed):
        line.poll("cid")
    line.gate("open")
    line.leave("ann")
    assert line.poll("cid").state == "admitted"
