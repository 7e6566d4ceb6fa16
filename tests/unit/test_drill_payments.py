"""Bounds of the payment firms' drills, each with evidence that breaks it; what was watched is told and drawn; what an
incident broke is put right however it ends."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from artillery.report import Audit
from drills import gateway_down
from drills.harness import money, report
from drills.harness.books import Movement
from drills.harness.client import Reply
from drills.harness.crowd import _GaveUp, _read_pending
from drills.harness.drill import Bound, Judged, p95_within, slowest_within
from drills.harness.evidence import Evidence, Mark
from drills.harness.money import PAY
from drills.harness.record import Answer, Outcome
from drills.harness.run import happen
from drills.harness.scene import IncidentFailed, Scene
from drills.harness.watch import HALF_OPEN, LAG, OPEN, PENDING, Sample, circuit

DANAL = circuit("danal", "charges")


def moved(firm: str, kind: str, at_s: int, order_id: str) -> Movement:
    at = datetime.fromtimestamp(at_s, UTC).isoformat()
    return Movement(firm, cast(Any, kind), f"{order_id}-key", order_id, at)


@pytest.fixture
def seen() -> Evidence:
    """A drill that went well: danal broken from 10 to 20, its circuit open from 11 to 22, one payment pending to 24."""
    evidence = Evidence(start_us=0)
    evidence.marks += [Mark(0, "begin", ""), Mark(10, "break", "away"), Mark(20, "heal", "back"), Mark(30, "end", "")]
    for second in range(32):
        state = OPEN if 11 <= second < 22 else 0.0
        state = HALF_OPEN if second == 16 else state
        values = {PENDING: float(12 <= second < 24), DANAL: state, LAG: float(second == 31)}
        evidence.samples.append(Sample(float(second), values))
    evidence.record.add(Answer(PAY, 9.0, 0.1, 201, "", Outcome.OK))
    evidence.record.add(Answer(PAY, 10.0, 2.5, 202, "", Outcome.OK))
    evidence.record.add(Answer(PAY, 13.0, 0.1, 201, "", Outcome.OK))
    evidence.record.add(Answer("reservation", 12.0, 0.4, 200, "", Outcome.OK))
    evidence.books = [
        moved("danal", "charge", 9, "before"),
        moved("payco", "charge", 13, "meanwhile"),
        moved("danal", "charge", 22, "open"),
        moved("danal", "charge", 23, "after"),
    ]
    return evidence


HOLDS = (
    money.pending_instead_of_error(),
    money.nobody_waits_for_a_firm(2.6),
    money.told_pending(1),
    money.nobody_else_is_told_pending(),
    money.charged_by("payco", 1),
    money.charged_by_both(),
    money.nobody_is_charged_twice(),
    money.nothing_is_given_back(),
    money.circuit_opened("danal"),
    money.circuit_closed_within_of_heal("danal", 2),
    money.charges_again_within_of_heal("danal", 2),
    money.left_in_peace_after_heal("payco", 0),
    money.nothing_pending_within_of_heal(4),
    money.taken_while_broken("payco", 1),
    slowest_within(0.5, "reservation", name="looks"),
    p95_within(0.5, "reservation", name="looks"),
)


def measured(bound: Bound, evidence: Evidence) -> bool:
    return Judged(bound, bound.measure(evidence)).passed


def test_a_drill_that_went_well_keeps_all_bounds(seen: Evidence) -> None:
    assert [str(bound) for bound in HOLDS if not measured(bound, seen)] == []


@pytest.mark.parametrize(
    "bound",
    [
        money.nobody_waits_for_a_firm(2.4),
        money.told_pending(2),
        money.charged_by("payco", 2),
        money.circuit_opened("payco"),
        money.circuit_closed_within_of_heal("danal", 1),
        money.charges_again_within_of_heal("danal", 1),
        money.charges_again_within_of_heal("payco", 9),
        money.nothing_pending_within_of_heal(3),
        money.taken_while_broken("danal", 1),
        money.nothing_taken_while_broken(),
        slowest_within(0.3, "reservation", name="looks"),
        p95_within(0.3, "reservation", name="looks"),
        slowest_within(9, "step6_reserve", name="what nobody did"),
        p95_within(9, "step6_reserve", name="what nobody did"),
    ],
    ids=str,
)
def test_a_bound_that_is_too_tight_for_what_happened_fails(bound: Bound, seen: Evidence) -> None:
    assert not measured(bound, seen)


@pytest.mark.parametrize(
    ("bound", "movement"),
    [
        (money.charged_by_both(), moved("payco", "charge", 25, "open")),
        (money.nobody_is_charged_twice(), moved("payco", "charge", 25, "open")),
        (money.nothing_is_given_back(), moved("danal", "refund", 25, "open")),
        (money.left_in_peace_after_heal("payco", 4), moved("payco", "charge", 25, "late")),
    ],
    ids=str,
)
def test_a_movement_of_money_that_must_not_be_fails(bound: Bound, movement: Movement, seen: Evidence) -> None:
    assert measured(bound, seen)

    seen.books = [*(seen.books or ()), movement]

    assert not measured(bound, seen)


def test_who_is_told_pending_though_the_other_firm_is_well_fails(seen: Evidence) -> None:
    seen.record.add(Answer(PAY, 12.5, 0.1, 202, "", Outcome.OK))

    assert not measured(money.nobody_else_is_told_pending(), seen)


def test_a_payment_still_pending_and_a_circuit_still_open_at_the_last_look_fail(seen: Evidence) -> None:
    seen.samples.append(Sample(32.0, {PENDING: 1.0, DANAL: HALF_OPEN}))

    assert money.nothing_pending_within_of_heal(99).measure(seen) is None
    assert money.circuit_closed_within_of_heal("danal", 99).measure(seen) is None


def test_pending_needs_words_on_when_and_what() -> None:
    told = b'{"status": "pending", "options": ["wait", "cancel"]}'

    assert _read_pending(Reply(202, {"retry-after": "2"}, told)) == 2
    for reply in (Reply(202, {}, told), Reply(202, {"retry-after": "2"}, b'{"status": "pending"}')):
        with pytest.raises(_GaveUp):
            _read_pending(reply)


# -- what is told ------------------------------------------------------------------------------------------------------


@pytest.fixture
def outcome(seen: Evidence) -> report.Outcome:
    drill = replace(gateway_down.DRILL, bounds=())
    return report.Outcome(
        drill, "gateway", datetime(2026, 11, 25, tzinfo=UTC), "scripts/drill", seen, drill.judge(seen), Audit(0, "")
    )


def test_the_timeline_has_the_pending_answers_and_the_circuits(outcome: report.Outcome) -> None:
    words = [f"{at_s:.1f} {words}" for at_s, words in report.timeline(outcome.evidence)]

    assert "12.5 7 pay: first answer with pending (202), 2.50 s after the break" in words
    assert "24.0 no payment is pending any more, 4.00 s after it is whole" in words
    assert "11.0 the circuit of danal's charges opens, 1.00 s after the break" in words
    assert "22.0 the circuit of danal's charges is closed for good, 2.00 s after it is whole" in words


def test_what_was_watched_is_a_row_to_the_last_look(outcome: report.Outcome) -> None:
    lines = report.as_text(outcome).splitlines()

    [row] = [line for line in lines if line.strip().startswith(DANAL)]
    assert row.split()[3] == "·" * 11 + "█" * 5 + "▄" + "█" * 5 + "·" * 10
    [row] = [line for line in lines if line.strip().startswith(LAG)]
    assert row.split()[3] == "·" * 31 + "█"  # after the people have gone home
    assert not [line for line in lines if "payco" in line and "circuit" in line]  # nothing was to be seen of it


def test_what_was_watched_is_drawn_and_in_the_record(outcome: report.Outcome) -> None:
    page, record = report.as_html(outcome), report.as_json(outcome)

    assert "Payments pending" in page
    assert "Circuits of danal" in page
    assert "Circuits of payco" not in page
    assert len(record["watched"]["at_s"]) == len(record["watched"][DANAL]) == 32
    assert max(record["watched"][PENDING]) == 1


# -- however it ends ---------------------------------------------------------------------------------------------------


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def scene(done: list[str]) -> Scene:
    scene = Scene(cast(Any, SimpleNamespace(undo=ExitStack())), cast(Any, None), Evidence(0))
    scene.undo_later(lambda: done.append("put right"))
    return scene


async def fails(_: Scene) -> None:
    raise IncidentFailed("no new leader")


async def hangs(_: Scene) -> None:
    await asyncio.sleep(60)


async def is_wrong(_: Scene) -> None:
    raise RuntimeError


@pytest.mark.parametrize(
    ("incident", "stopped"), [(fails, "no new leader"), (hangs, "the incident had not ended after 0 s")]
)
def test_what_an_incident_that_stops_has_broken_is_put_right(
    incident: Callable[[Scene], Awaitable[None]], stopped: str, scene: Scene, done: list[str]
) -> None:
    assert asyncio.run(happen(incident, scene, 0.02)) == stopped
    assert done == ["put right"]


def test_what_an_incident_that_is_wrong_has_broken_is_put_right(scene: Scene, done: list[str]) -> None:
    with pytest.raises(RuntimeError):
        asyncio.run(happen(is_wrong, scene, 60))
    assert done == ["put right"]


def test_ctrl_c_puts_right_what_is_just_being_broken(scene: Scene, done: list[str]) -> None:
    def break_slowly() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        done.append("broken")

    async def incident(scene: Scene) -> None:
        await scene.do(break_slowly)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(happen(incident, scene, 60))
    assert done == ["broken", "put right"]
