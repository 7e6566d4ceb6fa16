"""What a drill's evidence says: outages, phases, latencies; who kept the place and who did not."""

from collections.abc import Iterable

import pytest

from drills.harness.client import Reply
from drills.harness.evidence import Evidence, Mark, percentile
from drills.harness.people import (
    Person,
    Told,
    Turn,
    honest_etas,
    most_inside,
    overtaken,
    places_lost,
    worse_positions,
)
from drills.harness.record import Answer, Outcome, outcome_of

JOIN, POLL, PAY = "step1_join_queue", "step2_queue_position", "step7_pay"
START_US = 1_000_000_000


def evidence(answers: Iterable[tuple[str, float, Outcome]], **moments: float) -> Evidence:
    """Answers as (step, when it came, outcome), each after 10 ms; moments: broke, heal, end."""
    seen = Evidence(START_US)
    for step, at_s, outcome in answers:
        problem = "/problems/line-away" if outcome is Outcome.REFUSED else ""
        seen.record.add(Answer(step, at_s - 0.01, 0.01, 503 if problem else 200, problem, outcome))
    for kind, at_s in moments.items():
        seen.marks.append(Mark(at_s, "break" if kind == "broke" else kind, kind))  # type: ignore[arg-type]
    return seen


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(201), Outcome.OK),
        (Reply(409), Outcome.DECLINED),
        (Reply(503, {"retry-after": "2"}), Outcome.REFUSED),
        (Reply(503), Outcome.BROKEN),
        (Reply(503, {"retry-after": "0"}), Outcome.BROKEN),
        (Reply(500), Outcome.BROKEN),
        (Reply(404), Outcome.BROKEN),
        (Reply(0, fault="timeout"), Outcome.BROKEN),
    ],
)
def test_how_an_answer_went(reply: Reply, expected: Outcome) -> None:
    assert outcome_of(reply, accepted=(201, 409)) is expected


# -- the timeline -----------------------------------------------------------------------------------------------------


def test_an_outage_begins_with_the_first_refusal_and_ends_with_the_first_answer_after_the_last() -> None:
    seen = evidence(
        [
            (JOIN, 9, Outcome.OK),
            (JOIN, 10.5, Outcome.REFUSED),
            (JOIN, 11, Outcome.OK),  # one got through meanwhile
            (JOIN, 12, Outcome.BROKEN),
            (POLL, 12.5, Outcome.OK),
            (JOIN, 13, Outcome.OK),
        ],
        broke=10,
        heal=12,
        end=20,
    )

    outage = seen.outage((JOIN,))

    assert outage is not None
    assert (outage.first_s, outage.last_s, outage.back_s, outage.count) == (0.5, 2, 3, 2)
    assert outage.problem == "503 /problems/line-away"
    assert seen.back_after_s(JOIN) == 3
    assert seen.back_after_s(POLL) == 0
    assert seen.over_s == 12


def test_a_step_that_never_came_back_has_no_time() -> None:
    seen = evidence([(JOIN, 9, Outcome.OK), (JOIN, 11, Outcome.REFUSED)], broke=10, end=20)

    assert seen.back_after_s(JOIN) is None


def test_what_people_meet_on_their_way_home_is_no_outage() -> None:
    seen = evidence([(JOIN, 11, Outcome.OK), (JOIN, 21, Outcome.REFUSED)], broke=10, end=20)

    assert seen.outage((JOIN,)) is None


def test_without_a_break_nothing_is_during_or_after_it() -> None:
    seen = evidence([(JOIN, 1, Outcome.OK), (JOIN, 2, Outcome.REFUSED)], end=20)

    assert list(seen.failures()) == []
    assert seen.latency((JOIN,), "before").answers == 1
    assert seen.latency((JOIN,), "during").answers == seen.latency((JOIN,), "after").answers == 0


def test_phases_part_the_answers() -> None:
    at = [(PAY, second, Outcome.OK) for second in (1, 2, 11, 16, 17, 18)]
    seen = evidence([*at, (PAY, 12, Outcome.REFUSED), (PAY, 13, Outcome.BROKEN)], broke=10, heal=15, end=20)

    counts = [seen.latency((PAY,), phase) for phase in ("before", "during", "after")]

    assert [count.answers for count in counts] == [2, 1, 3]
    assert [count.refused for count in counts] == [0, 1, 0]
    assert [count.broken for count in counts] == [0, 1, 0]
    assert counts[0].p50_ms == pytest.approx(10)


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentile([], 0.5) == 0
    assert percentile([7], 0.95) == 7
    assert percentile(range(1, 101), 0.5) == 50
    assert percentile(range(1, 101), 0.95) == 95
    assert percentile(range(1, 101), 1) == 100


# -- the line ---------------------------------------------------------------------------------------------------------


def at(seconds: float) -> int:
    """A moment of the drill as places and admission numbers say it."""
    return START_US + round(seconds * 1e6)


def person(place_s: float, *, let_in_s: float | None = None, fetched_s: float | None = None, **more: object) -> Person:
    """Somebody who was told a place, and perhaps let in."""
    turn = Turn(at(place_s), place_s)
    if let_in_s is not None:
        turn.admission, turn.pass_place, turn.fetched_s = at(let_in_s), turn.place, fetched_s or let_in_s
    for name, value in more.items():
        setattr(turn, name, value)
    return Person("somebody", asked_s=place_s, turns=[turn])


def test_who_keeps_the_place_and_is_let_in_by_it_has_lost_nothing() -> None:
    people = [person(1, let_in_s=5), person(2, let_in_s=6), person(3)]

    assert places_lost(people) == []
    assert overtaken(people, START_US) == []


def test_a_turn_that_ended_unused_or_for_another_place_is_lost() -> None:
    people = [person(1, lost="turn over"), person(2, let_in_s=5, pass_place=at(4)), person(3, let_in_s=6)]

    assert len(places_lost(people)) == 2


def test_who_is_let_in_after_a_later_place_or_waits_still_is_overtaken() -> None:
    people = [person(1, let_in_s=8), person(2, waited_s=8), person(3, let_in_s=7), person(4, let_in_s=9)]

    assert len(overtaken(people, START_US)) == 2
    assert overtaken(people, START_US, since_us=at(4)) == []


def test_who_did_not_ask_any_more_may_have_been_let_in_unseen() -> None:
    assert overtaken([person(2, waited_s=6), person(3, let_in_s=7)], START_US) == []


def test_the_most_inside_are_counted_from_admission_to_the_end_of_the_turn() -> None:
    people = [person(1, let_in_s=5, over_s=7.0), person(2, let_in_s=6, over_s=9.0), person(3, let_in_s=8), person(4)]

    assert most_inside(people, START_US) == 2


def test_more_people_ahead_than_can_be_there_is_a_worse_position() -> None:
    people = [person(1, let_in_s=5, fetched_s=6), person(2), person(3)]

    def told(asked_s: float, ahead: int) -> list[str]:
        return worse_positions(people, [Told(asked_s, asked_s + 0.01, at(3), ahead, None)])

    assert told(4, ahead=2) == []
    assert len(told(4, ahead=3)) == 1
    assert told(5.9, ahead=2) == []  # let in, but that was not known then
    assert len(told(6.5, ahead=2)) == 1
    assert told(6.5, ahead=1) == []


def test_people_who_wait_for_their_first_answer_may_be_ahead() -> None:
    under_way = Person("somebody", asked_s=1, turns=[Turn(at(5), 5)])
    people = [person(2), under_way]

    assert worse_positions(people, [Told(3, 3.1, at(2), 1, None)]) == []
    assert len(worse_positions(people, [Told(6, 6.1, at(2), 1, None)])) == 1


def test_a_told_wait_is_honest_when_it_comes_true() -> None:
    people = [person(1, let_in_s=101)]

    def share(*told: tuple[float, int | None]) -> float | None:
        return honest_etas(people, [Told(at_s, at_s, at(1), 1, eta_s) for at_s, eta_s in told], START_US)

    assert share((1, 100), (1, 119), (99, 5)) == 1
    assert share((1, 100), (1, 60)) == 0.5
    assert share((1, None)) is None
