"""What the line promises, in simulated time on the real scripts: waits as told, no turn lost, polls in their budget."""

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from booking.operations.draw import order_of
from booking.platform.postgres import primary
from booking.platform.redis import redis
from booking.platform.redis_keys import line_key
from booking.platform.settings import settings
from booking.queue import Token, position
from booking.queue.admissions import copy_admissions
from booking.queue.line import LineClosed
from booking.queue.tokens import sign_token
from support.crowd import Crowd, Visit
from support.redis import runs_on

pytestmark = runs_on("single")  # rules and time: the servers that run the scripts make no difference

SHORT_S = 10
"""Waits shorter than this are not judged: a second more or less is a tenth of them."""


@pytest.fixture
def crowd_at(open_line: Callable[..., object]) -> Callable[..., Crowd]:
    """Opens a line of these settings to a crowd: ``crowd_at(capacity=100, rate_per_s=20)``."""
    return lambda **options: Crowd(open_line(**options))


def people(crowd: Crowd, count: int, within_s: float, stays_s: tuple[float, float] | None = None) -> None:
    """So many arrive within this time, each to shop for between so and so long (None: until the pass lapses)."""
    for number in range(count):
        stay_s = crowd.random.uniform(*stays_s) if stays_s else None
        crowd.arrive(f"p{number}", crowd.random.uniform(0, within_s), stays_s=stay_s)


def errors_of_etas(visits: list[Visit], told_from_s: float = 0, told_until_s: float = 1e9) -> list[float]:
    """How far each told ETA was off, as a part of the wait that came; -0.1: the wait was a tenth longer."""
    return [
        (eta_s - wait_s) / wait_s
        for visit in visits
        for told_s, _, eta_s in visit.told
        if told_from_s <= told_s < told_until_s and eta_s is not None and (wait_s := visit.in_s - told_s) > SHORT_S
    ]


def share_within(errors: list[float], tolerance: float) -> float:
    return sum(abs(error) <= tolerance for error in errors) / len(errors)


def everybody_came_in(crowd: Crowd) -> list[Visit]:
    visits = list(crowd.visits.values())
    assert [visit for visit in visits if visit.refused or visit.in_s is None] == []
    return visits


def in_order_of_joining(visits: list[Visit], slack_s: float) -> bool:
    """Whether nobody learned of their turn more than ``slack_s`` (the time between polls) before an earlier one."""
    latest_in_s = [visit.in_s for visit in sorted(visits, key=lambda visit: visit.joined_s)]
    return all(earlier_s <= later_s + slack_s for earlier_s, later_s in pairwise(latest_in_s))


# ---- the wait that people are told ----


@pytest.mark.parametrize("rate_per_s", [2, 20, 60])
def test_etas_come_true_at_the_gates_rate(crowd_at, rate_per_s):
    crowd = crowd_at(capacity=100_000, rate_per_s=rate_per_s)
    people(crowd, count=rate_per_s * 20 + 200, within_s=5)
    crowd.run(until_s=40 + 200 / rate_per_s * 2)
    errors = errors_of_etas(everybody_came_in(crowd))
    assert len(errors) > 200 and share_within(errors, 0.1) > 0.9


def test_etas_come_true_in_a_full_shop(crowd_at):
    crowd = crowd_at(capacity=50, rate_per_s=20)
    people(crowd, count=350, within_s=10, stays_s=(10, 50))
    crowd.run(until_s=350)
    visits = everybody_came_in(crowd)
    # Nobody can know how long people shop until the first have gone; from then on it is measured.
    errors = errors_of_etas(visits, told_from_s=60)
    assert len(errors) > 200 and share_within(errors, 0.3) > 0.85
    assert abs(sorted(errors)[len(errors) // 2]) < 0.1


def test_etas_come_true_after_a_pause(crowd_at):
    crowd = crowd_at(capacity=25, rate_per_s=10)
    people(crowd, count=200, within_s=10, stays_s=(10, 50))
    crowd.at(120, lambda: crowd.turn_gate("pause"))
    crowd.at(180, lambda: crowd.turn_gate("resume"))
    crowd.run(until_s=500)
    visits = everybody_came_in(crowd)
    paused = [eta_s for visit in visits for told_s, _, eta_s in visit.told if 121 < told_s < 180]
    assert paused and set(paused) == {None}
    # The shop has emptied meanwhile: the next come in at the gate's rate, the rest as before.
    errors = errors_of_etas(visits, told_from_s=190)
    assert len(errors) > 100 and share_within(errors, 0.35) > 0.8


def test_positions_only_fall_while_nobody_returns(crowd_at):
    crowd = crowd_at(capacity=50, rate_per_s=20)
    people(crowd, count=200, within_s=10, stays_s=(10, 30))
    crowd.run(until_s=250)
    for visit in everybody_came_in(crowd):
        positions = [position for _, position, _ in visit.told]
        assert positions == sorted(positions, reverse=True)


# ---- no turn is lost to the poll times that people are told ----


def test_people_who_poll_as_told_come_in_in_order(crowd_at):
    crowd = crowd_at(capacity=40, rate_per_s=10)
    people(crowd, count=300, within_s=60, stays_s=(5, 30))
    crowd.run(until_s=400)
    assert in_order_of_joining(everybody_came_in(crowd), slack_s=2)


@pytest.mark.parametrize("rate_per_s", [0.2, 5])
def test_a_rate_that_is_raised_loses_nobody_a_turn(crowd_at, rate_per_s):
    crowd = crowd_at(capacity=400, rate_per_s=rate_per_s)
    people(crowd, count=400, within_s=10, stays_s=(5, 30))
    crowd.at(60, lambda: crowd.turn_gate("rate", 100))
    crowd.run(until_s=600)
    everybody_came_in(crowd)


def test_a_rate_that_is_raised_lets_people_in_by_place_although_they_poll_by_the_old_one(crowd_at):
    crowd = crowd_at(capacity=1000, rate_per_s=5)
    people(crowd, count=400, within_s=10)
    crowd.at(60, lambda: crowd.turn_gate("rate", 100))
    crowd.run(until_s=120)
    everybody_came_in(crowd)
    places = [turn["place"] for turn in crowd.line.admissions()]
    assert places == sorted(places)


def test_without_looking_when_people_come_turns_would_be_lost(crowd_at, break_script):
    break_script("return now <= due + GRACE_US and due <= now + wait_us", "return now <= due + GRACE_US")
    crowd = crowd_at(capacity=400, rate_per_s=0.2)
    people(crowd, count=400, within_s=10, stays_s=(5, 30))
    crowd.at(60, lambda: crowd.turn_gate("rate", 100))
    crowd.run(until_s=600)
    assert {visit.refused for visit in crowd.visits.values()} == {None, "turn-over"}


def test_a_capacity_that_is_raised_loses_nobody_a_turn(crowd_at):
    crowd = crowd_at(capacity=1, rate_per_s=100)
    people(crowd, count=300, within_s=10, stays_s=(5, 30))
    crowd.at(40, lambda: crowd.turn_gate("capacity", 300))
    crowd.run(until_s=100)
    everybody_came_in(crowd)


def test_a_budget_that_stretches_the_polls_is_kept_and_loses_nobody_a_turn(crowd_at, use_settings):
    use_settings(polls_per_s_max=20)
    crowd = crowd_at(capacity=50, rate_per_s=50)
    people(crowd, count=600, within_s=30, stays_s=(10, 40))
    crowd.run(until_s=600)
    everybody_came_in(crowd)
    per_s = [sum(crowd.polls[second + tenth] for tenth in range(10)) / 10 for second in range(40, 400)]
    assert max(per_s) <= 20 * 1.1
    assert max(per_s) > 10  # the line was long enough for it to matter


def test_a_line_that_was_closed_for_a_while_goes_on_in_order(crowd_at):
    crowd = crowd_at(capacity=60, rate_per_s=10)
    people(crowd, count=400, within_s=20, stays_s=(5, 30))
    crowd.at(60, lambda: crowd.turn_gate("close"))
    crowd.at(75, lambda: crowd.turn_gate("open"))
    crowd.run(until_s=500)
    everybody_came_in(crowd)
    assert sum(told["entered_after"] > 0 for told in crowd.line.admissions()) == 0  # nobody was passed over
    places = [told["place"] for told in crowd.line.admissions()]
    assert places == sorted(places)


# ---- people who do not come back ----


def test_nine_of_ten_abandon_and_the_tenth_hardly_notices(crowd_at):
    stays_s, capacity, real = 60, 15, 150
    crowd = crowd_at(capacity=capacity, rate_per_s=3)
    for number in range(real * 10):
        stay_s = crowd.random.uniform(0.5 * stays_s, 1.5 * stays_s)
        crowd.arrive(f"p{number}", crowd.random.uniform(0, 20), stays_s=stay_s, abandons=number % 10 > 0)
    crowd.run(until_s=1000)
    came_in = [visit.in_s for number, visit in enumerate(crowd.visits.values()) if number % 10 == 0]
    assert None not in came_in
    ideal_s = real * stays_s / capacity
    assert max(came_in) < ideal_s / 0.8


# ---- a loss in the middle of it ----


def test_a_loss_in_the_rush_keeps_the_order_and_the_capacity(crowd_at, audit):
    crowd = crowd_at(capacity=40, rate_per_s=10)
    line = crowd.line
    crowd.every(1, copy_admissions)
    people(crowd, count=200, within_s=40, stays_s=(5, 40))
    crowd.at(50.3, line.forget)
    for number in range(50):  # they come to a line that has forgotten everybody
        crowd.arrive(f"new{number}", 50.31 + number / 100, stays_s=10)
    crowd.run(until_s=900)
    visits = everybody_came_in(crowd)
    old = [visit for visit in visits if not visit.name.startswith("new") and visit.in_s > 51]
    new = [visit for visit in visits if visit.name.startswith("new")]
    assert len(old) > 50
    assert max(visit.in_s for visit in old) < min(visit.in_s for visit in new) + 2
    assert in_order_of_joining(old, slack_s=2)
    copy_admissions()
    violations = audit().violations
    assert (violations["I4"], violations["I5"]) == ([], [])


def test_a_loss_at_the_opening_of_a_draw_keeps_the_draw(crowd_at, audit):
    crowd = crowd_at(capacity=20, rate_per_s=10, opens_in_s=100)
    line = crowd.line
    line.gate("draw")
    people(crowd, count=150, within_s=30, stays_s=(5, 20))
    crowd.every(1, copy_admissions)
    crowd.at(104.7, line.forget)
    crowd.run(until_s=1000)
    everybody_came_in(crowd)
    copy_admissions()
    rows = primary().rows(
        "select person, place, admitted_at from admission where concert_id = :id order by number", id=line.concert_id
    )
    assert all(place < 2**50 for _, place, _ in rows)
    violations = audit().violations
    assert (violations["I4"], violations["I5"]) == ([], [])


@pytest.mark.parametrize("lost_s", [-60, 1])
def test_a_loss_about_the_opening_of_a_draw_lets_in_who_was_drawn_first(crowd_at, use_settings, lost_s):
    use_settings(polls_per_s_max=10)  # so that they come back over a whole minute
    crowd = crowd_at(capacity=30, rate_per_s=10, opens_in_s=500)
    line = crowd.line
    line.gate("draw")
    people(crowd, count=300, within_s=100, stays_s=(5, 20))
    crowd.every(1, copy_admissions)
    crowd.at(500 + lost_s, line.forget)
    crowd.run(until_s=1300)
    everybody_came_in(crowd)
    seed = primary().value("select draw_seed from concert where id = :id", id=line.concert_id)
    order = [person for _, person in order_of(seed, map(line.person, crowd.visits))]
    recorded = [turn["person"] for turn in line.admissions()]
    # Who fetched the pass after the last copy before the loss has it, and no record of it.
    unrecorded = {line.person(name): visit.in_s for name, visit in crowd.visits.items()}
    for person in recorded:
        del unrecorded[person]
    assert all(499 + lost_s <= in_s <= 500 + lost_s for in_s in unrecorded.values())
    came_in = [*unrecorded, *recorded]
    assert set(came_in[:30]) == set(order[:30])
    assert max(came_in.index(person) - rank for rank, person in enumerate(order)) < 30


# ---- the opening of a draw ----


def test_the_opening_of_a_draw_is_no_storm(crowd_at, use_settings):
    use_settings(polls_per_s_max=10)  # all in one part of 200: 100,000 people, 200 let in and 2,000 polls a second
    crowd = crowd_at(capacity=1000, rate_per_s=1, opens_in_s=900)
    crowd.line.gate("draw")
    people(crowd, count=500, within_s=100)
    crowd.run(until_s=1450)
    everybody_came_in(crowd)
    collecting = sum(crowd.polls[second] for second in range(100, 890))
    assert collecting <= 3 * len(crowd.visits)
    per_s = [sum(crowd.polls[second + tenth] for tenth in range(10)) / 10 for second in range(890, 1440)]
    # For a moment who polls for the second time meets who polls for the first.
    assert max(per_s) <= 10 * 1.5


def test_a_draw_that_is_opened_before_its_time_goes_in_its_order(crowd_at, use_settings):
    use_settings(polls_per_s_max=10)
    crowd = crowd_at(capacity=1000, rate_per_s=2, opens_in_s=3600)
    crowd.line.gate("draw")
    people(crowd, count=300, within_s=100)
    crowd.at(500, lambda: crowd.turn_gate("open"))
    crowd.run(until_s=1100)
    everybody_came_in(crowd)
    places = [told["place"] for told in crowd.line.admissions()]
    assert places == sorted(places)


@pytest.mark.parametrize("waiting", [500, 20_000, 100_000])
def test_the_whole_line_stays_in_its_budget_while_nobody_moves(open_line, waiting):
    line = open_line(capacity=1)
    line.join("somebody inside")
    people = {f"p{number:021d}": 2**50 + number for number in range(waiting)}
    redis("queue").zadd(line_key(line.concert_id, "waiting"), people)
    rate_per_s, budget, samples = 200, settings().polls_per_s_max, 400
    per_s = 0.0
    for sample in range(samples):  # the sum over all of one poll each interval, by ranks that lie ever further apart
        low, high = (int(waiting ** (edge / samples)) - 1 for edge in (sample, sample + 1))
        if high > low:
            rank = (low + high) // 2
            token = Token(line.concert_id, f"p{rank:021d}", 2**50 + rank, 1, int(time.time()) + 60)
            turn = position(sign_token(token))
            assert turn.position == rank + 1
            assert 1 <= turn.poll_after_ms / 1000 <= 300 * 1.5  # who is that far back is spread both ways
            per_s += (high - low) / (turn.poll_after_ms / 1000)
    assert per_s <= budget
    assert per_s > min(waiting, rate_per_s) / 2  # the front is asked to come often enough to be there


def test_a_closed_line_is_asked_within_the_budget(open_line, use_settings):
    use_settings(polls_per_s_max=1)
    line = open_line(capacity=1)
    for number in range(60):
        line.join(f"p{number}")
    line.gate("close")
    with pytest.raises(LineClosed) as refused:
        line.poll("p30")
    assert 59 <= refused.value.retry_after_s <= 60 * 1.2
