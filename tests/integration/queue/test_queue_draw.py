"""Draw mode: people are collected before the opening, and a hidden seed orders them at that moment."""

import hashlib
from collections.abc import Callable, Iterator

import pytest
from pg8000.exceptions import DatabaseError

from booking.catalog.concerts import find_concert
from booking.operations.draw import DrawCheck, DrawUncheckable, check_draw, draw_key, order_of
from booking.platform.postgres import Server, primary
from booking.platform.redis import redis
from booking.platform.redis_keys import line_key
from booking.platform.settings import settings
from booking.queue import leave_line, read_token
from booking.queue.admissions import copy_admissions, keep_lines_moving
from booking.queue.gate import DrawTooLate, change_gate, show_gate
from booking.queue.line import SalesNotOpen, TurnOver
from support.replica import wait_for_replica

DAY_S = 24 * 3600
NAMES = [f"p{number}" for number in range(12)]


@pytest.fixture
def open_draw(open_line):
    """Makes a line that collects people for a draw: ``open_draw(opens_in_s=3600, capacity=1)``."""

    def make(opens_in_s=3600, **options):
        line = open_line(opens_in_s=opens_in_s, **options)
        line.gate("draw")
        return line

    return make


def opening(line, present=()):
    """Let the moment of the opening pass, an hour after the joining, with these people there."""
    line.clock.advance(3590)
    for name in present:
        line.poll(name)
    line.clock.advance(11)


def publish(line):
    """Let the database's clock, which no test moves, pass the opening too."""
    primary().rows("update concert set sales_open_at = now() where id = :id", id=line.concert_id)


def seed_of(line):
    return primary().value("select draw_seed from concert where id = :id", id=line.concert_id)


def drawn(line, names=NAMES):
    """The names in the order of their draw, recomputed."""
    by_person = {line.person(name): name for name in names}
    return [by_person[person] for _, person in order_of(seed_of(line), by_person)]


def collected(line):
    return int(redis("queue").zcard(line_key(line.concert_id, "waiting")))


# ---- before the opening ----


def test_people_are_collected_without_a_position(open_draw):
    line = open_draw()
    turn = line.join("ann")
    assert (turn.state, turn.position, turn.ahead, turn.eta_s, turn.created) == ("waiting", None, None, None, True)
    assert turn.opens_at.endswith("Z")
    polled = line.poll("ann")
    assert (polled.position, polled.opens_at, polled.token) == (None, turn.opens_at, turn.token)
    assert turn.body().keys() == {"token", "state", "position", "ahead", "eta_s", "poll_after_ms", "opens_at"}


def test_first_come_first_served_collects_nobody(open_line):
    with pytest.raises(SalesNotOpen):
        open_line(opens_in_s=3600).join("ann")


def test_joining_again_and_another_tab_are_one_person(open_draw):
    line = open_draw(capacity=1)
    for name in NAMES:
        line.join(name)
    first = line.tokens["p5"]
    again = line.join("p5")
    assert not again.created and collected(line) == len(NAMES)
    opening(line)
    assert line.poll(drawn(line)[0]).state == "admitted"
    turn = line.poll("p5")
    line.tokens["p5"] = first
    other = line.poll("p5")
    assert (turn.state, turn.position) == (other.state, other.position)


def test_the_token_does_not_tell_the_draw(open_draw):
    line = open_draw(capacity=1)
    for name in NAMES:
        place = read_token(line.join(name).token).place
        assert place > 2**50 and place != draw_key(seed_of(line), line.person(name))
    opens_us = int(redis("queue").hget(line_key(line.concert_id, "gate"), "opens_us"))
    places = [read_token(line.tokens[name]).place for name in NAMES]
    assert places == sorted(places) and places[-1] < opens_us  # the order of joining, no more
    opening(line)
    for name in NAMES:  # also once it is known: whoever was let in, and whoever waits
        turn = line.join(name)
        assert read_token(turn.token).place == opens_us - 1


def test_leaving_and_joining_again_is_the_same_draw(open_draw):
    line = open_draw(capacity=1)
    for name in NAMES:
        line.join(name)
    old = line.tokens["p3"]
    line.leave("p3")
    assert collected(line) == len(NAMES) - 1
    line.join("p3")
    with pytest.raises(TurnOver):
        line.tokens["left"] = old
        line.poll("left")
    leave_line(old)  # an old paper does not end a newer turn
    assert collected(line) == len(NAMES)
    opening(line, present=NAMES)
    positions = {name: line.join(name).position for name in NAMES}
    assert sorted(positions, key=positions.get) == drawn(line)


def test_who_has_left_is_out_of_the_draw(open_draw):
    line = open_draw(capacity=1)
    for name in NAMES:
        line.join(name)
    first = drawn(line)[0]
    line.leave(first)
    opening(line)
    assert line.poll(drawn(line)[1]).state == "admitted"
    with pytest.raises(TurnOver):
        line.poll(first)


def test_polls_before_the_opening_are_rare_and_then_spread_after_it(open_draw, use_settings):
    use_settings(polls_per_s_max=1)
    line = open_draw(opens_in_s=3600)
    for name in NAMES:
        line.join(name)
    waits = [line.poll(name).poll_after_ms / 1000 for name in NAMES]
    assert all(300 <= wait <= 360 for wait in waits)
    line.clock.advance(3500)
    waits = [line.poll(name).poll_after_ms / 1000 for name in NAMES]
    assert all(99 <= wait <= 100 + len(NAMES) for wait in waits)  # one a second from the opening on
    assert max(waits) - min(waits) > 1


def test_nobody_is_told_to_poll_sooner_than_after_a_second(open_draw, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.0)
    line = open_draw(opens_in_s=3600)
    line.clock.advance(3599.5)
    assert line.join("ann").poll_after_ms == 1000


# ---- the opening ----


def test_at_the_opening_everybody_has_the_drawn_position(open_draw):
    line = open_draw(capacity=1)
    for name in NAMES:
        line.join(name)
    opening(line)
    order = drawn(line)
    assert order != NAMES
    turns = [line.poll(name) for name in order]
    assert [turn.position for turn in turns] == list(range(len(NAMES)))
    assert turns[0].state == "admitted" and turns[0].opens_at is None


def test_later_joiners_come_behind_by_the_clock(open_draw):
    line = open_draw(capacity=1)
    for name in NAMES:
        line.join(name)
    opening(line, present=NAMES)
    late = [line.join(name) for name in ("late", "later")]
    assert [turn.position for turn in late] == [len(NAMES), len(NAMES) + 1]
    assert read_token(late[0].token).place < read_token(late[1].token).place


def test_the_opening_needs_nobody_to_poll(open_draw):
    line = open_draw(capacity=2)
    for name in NAMES:
        line.join(name)
    opening(line, present=NAMES)
    keep_lines_moving()
    assert line.inside() == 2
    assert {line.poll(name).state for name in drawn(line)[:2]} == {"admitted"}


def test_an_operator_opens_the_sale_at_one_moment(open_draw):
    line = open_draw(capacity=1)
    for name in NAMES:
        line.join(name)
    assert line.gate("open").sale_opened
    assert line.poll("p0").position is None  # for one more second
    line.clock.advance(8)
    positions = {name: line.poll(name).position for name in drawn(line)}
    assert list(positions.values()) == list(range(len(NAMES)))


def test_an_opening_before_its_time_waits_until_all_who_were_collected_have_heard_of_it(open_draw):
    line = open_draw(capacity=1)
    told_s = {name: line.join(name).poll_after_ms / 1000 for name in NAMES}
    assert max(told_s.values()) <= line.gate("open").held_s <= max(told_s.values()) + 2
    line.clock.advance(2)
    order = drawn(line)
    for name in reversed(order):
        turn = line.poll(name)
        assert (turn.state, turn.position) == ("waiting", order.index(name) + 1)
    line.clock.advance(max(told_s.values()))
    for name in order:
        line.poll(name)
    keep_lines_moving()
    assert line.poll(order[0]).state == "admitted"


def test_few_people_hear_soon_of_an_opening_before_its_time(open_draw):
    assert 5 <= open_draw(opens_in_s=7200).join("ann").poll_after_ms / 1000 <= 6


def test_being_absent_before_the_opening_loses_nothing(open_draw):
    line = open_draw(opens_in_s=3 * DAY_S, capacity=1)
    for name in NAMES:
        line.join(name)
    for _ in range(3):
        line.clock.advance(DAY_S - 10)
        keep_lines_moving()
    present, absent = drawn(line)[-1], drawn(line)[0]
    line.poll(present)
    line.clock.advance(31)
    keep_lines_moving()
    assert line.poll(present).state == "admitted"  # nobody else is there
    positions = [line.poll(name).position for name in drawn(line)[:-1]]
    assert positions == list(range(1, len(NAMES)))
    line.leave(present)
    assert line.poll(absent).state == "admitted"


def test_equal_keys_are_ordered_by_person(open_draw, break_script):
    break_script("math.floor(tonumber(string.sub(redis.sha1hex(gate.seed .. ':' .. person), 1, 13), 16) / 4)", "7")
    line = open_draw(capacity=1)
    for name in NAMES:
        line.join(name)
    opening(line)
    positions = {name: line.join(name).position for name in sorted(NAMES, key=line.person)}
    assert list(positions.values()) == list(range(len(NAMES)))


# ---- a loss ----


def test_a_loss_before_the_opening_changes_nothing(open_draw):
    line = open_draw(capacity=1)
    for name in NAMES:
        line.join(name)
    copy_admissions()
    line.forget()
    assert line.poll("p7").position is None
    for name in NAMES[:-1]:
        line.poll(name)
    opening(line, present=NAMES[:-1])
    assert line.poll("p11").position is not None  # back only after the opening, by the token alone
    order = drawn(line)
    assert line.poll(order[0]).state == "admitted"
    assert [line.poll(name).position for name in order[1:]] == list(range(1, len(NAMES)))


def test_a_loss_before_the_opening_takes_no_slots(open_draw):
    line = open_draw(capacity=3, rate_per_s=1000)
    line.join("ann")
    line.forget()
    line.join("bob")
    assert line.inside() == 0


def test_the_hold_after_a_loss_moves_with_the_opening(open_draw):
    line = open_draw(opens_in_s=300)
    line.join("ann")
    line.forget()
    line.join("ann")
    assert 350 < show_gate(line.concert_id)["live"]["held_s"] <= 360
    line.gate("open")
    assert 50 < show_gate(line.concert_id)["live"]["held_s"] <= 62


def test_a_loss_after_the_opening_brings_everybody_back_to_the_drawn_place(open_draw):
    line = open_draw(capacity=2, rate_per_s=0.1)
    for name in NAMES:
        line.join(name)
    opening(line)
    order = drawn(line)
    assert line.poll(order[0]).state == "admitted"
    late = line.join("late")
    copy_admissions()
    line.forget()
    assert line.join("new").position == 1
    for name in ["late", *reversed(order[1:])]:
        line.poll(name)
    assert [line.poll(name).position for name in [*order[1:], "late", "new"]] == list(range(1, len(NAMES) + 2))
    assert late.position == len(NAMES)
    assert line.poll(order[0]).state == "admitted"


def test_a_turn_that_is_over_stays_over_after_a_loss(open_draw):
    line = open_draw(capacity=1)
    for name in NAMES:
        line.join(name)
    opening(line)
    first, second, third = drawn(line)[:3]
    line.poll(first)
    other_token = line.join(first).token
    line.leave(first)
    line.poll(second)
    copy_admissions()
    line.forget()
    for token in (line.tokens[first], other_token):
        line.tokens["over"] = token
        with pytest.raises(TurnOver):
            line.poll("over")
    assert line.poll(third).position == 1  # second is inside still
    line.leave(second)
    with pytest.raises(TurnOver):
        line.poll(second)


# ---- what is published, and when ----


def test_the_seed_is_hidden_until_the_opening_and_its_hash_never(open_draw):
    line = open_draw()
    line.join("ann")
    wait_for_replica()
    hashed = hashlib.sha256(seed_of(line).encode()).hexdigest()
    shown = find_concert(line.concert_id)
    assert (shown["line_mode"], shown["draw"]) == ("draw", {"seed_hash": hashed, "seed": None})
    assert seed_of(line) not in str(show_gate(line.concert_id))
    assert seed_of(line) not in str(change_gate(line.concert_id, "rate", 5, by="a test"))
    publish(line)
    wait_for_replica()
    assert find_concert(line.concert_id)["draw"] == {"seed_hash": hashed, "seed": seed_of(line)}


def test_a_published_draw_stays(open_draw):
    line = open_draw()
    seed = seed_of(line)
    line.gate("draw")
    assert seed_of(line) == seed
    for change in ("draw_seed = repeat('0', 64)", "line_mode = 'fifo', draw_seed = null"):
        with pytest.raises(DatabaseError, match="stay"):
            primary().rows(f"update concert set {change} where id = :id", id=line.concert_id)
    publish(line)
    with pytest.raises(DatabaseError, match="stay"):
        primary().rows("update concert set sales_open_at = now() + '1 h' where id = :id", id=line.concert_id)


@pytest.mark.parametrize("opens_in_s", [-60, 0.5])
def test_a_draw_needs_time_before_the_opening(open_line, opens_in_s):
    line = open_line(opens_in_s=opens_in_s)
    with pytest.raises(DrawTooLate):
        line.gate("draw")
    assert [change["action"] for change in show_gate(line.concert_id)["changes"]] == ["set"]


def put_off(line):
    """The sale has been open and opens again in an hour, for a line whose clock is a minute ahead."""
    primary().rows("update concert set sales_open_at = now() + '61 minutes' where id = :id", id=line.concert_id)


def test_a_line_that_has_let_people_in_becomes_a_draw_only_in_a_new_epoch(open_line):
    line = open_line(capacity=1)
    line.join("ann")
    copy_admissions()
    put_off(line)
    with pytest.raises(DrawTooLate):
        line.gate("draw")
    line.gate("restart")
    line.gate("draw")
    assert line.join("bob").position is None


def test_who_stands_in_the_line_or_was_passed_over_before_the_draw_is_drawn(open_line):
    line = open_line(capacity=0)
    for name in NAMES:
        line.join(name)
    line.clock.advance(60)
    for name in NAMES[:8]:
        line.poll(name)
    keep_lines_moving()  # passes over the others
    put_off(line)
    line.gate("draw")
    line.gate("capacity", 1)
    ask_by_token, ask_by_joining = NAMES[::2], NAMES[1::2]
    for name in ask_by_token:
        line.poll(name)
    for name in ask_by_joining:
        line.join(name)
    standing = redis("queue").zrange(line_key(line.concert_id, "waiting"), 0, -1)
    assert [person.decode() for person in standing] == [line.person(name) for name in drawn(line)]
    assert not redis("queue").exists(line_key(line.concert_id, "away"))
    opening(line, present=ask_by_token)
    order = drawn(line)
    assert line.poll(order[0]).state == "admitted"
    assert [line.poll(name).position for name in order[1:]] == list(range(1, len(NAMES)))


# ---- checking it ----


@pytest.fixture
def whole_check() -> Iterator[Callable[..., DrawCheck]]:
    server = Server(settings().database_url)

    def checked(line, **known):
        copy_admissions()
        return check_draw(server, line.concert_id, **known)

    yield checked
    server.close()


@pytest.fixture
def check(whole_check) -> Callable[..., list[str]]:
    return lambda line, **known: [fault for _, fault in whole_check(line, **known).faults]


@pytest.fixture
def a_sale(open_draw):
    """A draw whose people have come in, with one who was absent and one who came later."""
    line = open_draw(capacity=4)
    for name in NAMES:
        line.join(name)
    opening(line)
    order = drawn(line)
    for name in order[1:]:
        line.poll(name)
    line.clock.advance(20)
    line.join("late")
    for name in order[1:5]:
        line.leave(name)
    line.poll(order[0])
    for name in order[5:]:
        line.poll(name)
    publish(line)
    return line


def test_the_record_agrees_with_the_seed(a_sale, check):
    people = [a_sale.person(name) for name in NAMES]
    assert check(a_sale) == []
    assert check(a_sale, people=people) == []
    assert check(a_sale, people=people, published_hash=find_concert(a_sale.concert_id)["draw"]["seed_hash"]) == []


def test_who_was_not_there_at_their_turn_is_counted(a_sale, whole_check):
    people = [a_sale.person(name) for name in NAMES]
    check = whole_check(a_sale, people=people)
    assert (check.late, check.missing) == (1, 0)  # who waits behind everybody let in has missed nothing
    seed = seed_of(a_sale)
    last_key = max(told["place"] for told in a_sale.admissions() if told["place"] < 2**50)
    strangers = [a_sale.person(f"stranger {number}") for number in range(20)]
    in_front = sum(draw_key(seed, person) < last_key for person in strangers)
    assert whole_check(a_sale, people=people + strangers).missing == in_front


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("place = place + 1", "the seed gives"),
        ("entered_after = 0", "was let in before it"),
    ],
)
def test_a_record_that_was_changed_disagrees(a_sale, check, change, fault):
    check(a_sale)
    of_the_first = a_sale.person(drawn(a_sale)[0])
    primary().rows(f"update admission set {change} where person = :person", person=of_the_first)
    faults = check(a_sale)
    # Other tests audit this database.
    primary().rows("delete from admission where concert_id = :id", id=a_sale.concert_id)
    assert len(faults) == 1 and fault in faults[0]


def test_who_is_not_on_the_list_and_another_hash_are_told(a_sale, check):
    everybody = [a_sale.person(name) for name in NAMES]
    someone = drawn(a_sale)[2]
    faults = check(a_sale, people=[person for person in everybody if person != a_sale.person(someone)])
    assert faults == ["was let in by the draw, and is not on the list"]
    [fault] = check(a_sale, published_hash="00" * 32)
    assert f"{'00' * 32} was published" in fault


def test_there_may_be_nothing_to_check(open_draw, open_line, check):
    for line, reason in (
        (open_draw(), "published when the sale opens"),
        (open_line(), "has no draw"),
    ):
        with pytest.raises(DrawUncheckable, match=reason):
            check(line)
    line.concert_id = 2**62
    with pytest.raises(DrawUncheckable, match="no concert"):
        check(line)
