"""A drill can fail: bounds that are not met, an incident that does nothing, a stack that was broken before."""

import importlib
import json
import pkgutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import drills
from artillery.report import Audit
from drills.harness import report
from drills.harness.crowd import Plan
from drills.harness.drill import (
    Bound,
    Drill,
    all_drills,
    back_within,
    back_within_of_heal,
    let_in_after_heal,
    no_failures,
    nobody_loses_the_place,
    nobody_over_capacity,
    refused_at_all,
    the_shop_goes_on,
    waiting_at_break,
)
from drills.harness.evidence import Evidence, Mark
from drills.harness.people import Person, Turn
from drills.harness.record import LINE_STEPS, SHOP_STEPS, Answer, Outcome
from drills.harness.scene import Scene
from drills.harness.stage import Gate

JOIN = LINE_STEPS[0]
STARTED = datetime(2026, 11, 25, tzinfo=UTC)


async def nothing(_: Scene) -> None:
    """An incident."""


def drill(*bounds: Bound) -> Drill:
    return Drill(
        name="some",
        breaks="something",
        plan=Plan(at_once=1, within_s=1, then_per_s=0, people_max=1),
        gate=Gate(10, 10),
        incident=nothing,
        duration_s=30,
        felt=refused_at_all(*LINE_STEPS),
        bounds=bounds,
    )


def answer(step: str, at_s: float, outcome: Outcome = Outcome.OK) -> Answer:
    return Answer(step, at_s - 0.01, 0.01, 503 if outcome is Outcome.REFUSED else 200, "", outcome)


@pytest.fixture
def seen() -> Evidence:
    """A drill that went well: broken from 10 to 12, everything answered but a few joins."""
    evidence = Evidence(start_us=0)
    for tick in range(300):
        for step in (*LINE_STEPS, *SHOP_STEPS):
            refused = step == JOIN and 100 <= tick < 120
            evidence.record.add(answer(step, tick / 10 + 0.05, Outcome.REFUSED if refused else Outcome.OK))
    evidence.marks += [
        Mark(0, "begin", ""),
        Mark(10, "break", "it breaks"),
        Mark(12, "heal", "whole"),
        Mark(30, "end", ""),
    ]
    evidence.people = [
        Person(
            str(nth), nth, [Turn(nth * 1_000_000, nth, 0, (nth + 11) * 1_000_000, nth * 1_000_000, nth + 11, nth + 13)]
        )
        for nth in range(1, 9)
    ]
    return evidence


def outcome(of: Drill, evidence: Evidence, audit_exit: int = 0, stopped: str = "") -> report.Outcome:
    judged = of.judge(evidence)
    return report.Outcome(
        of, "gateway", STARTED, "scripts/drill some", evidence, judged, Audit(audit_exit, ""), stopped
    )


def test_a_drill_that_went_well_passes(seen: Evidence) -> None:
    bounds = (
        back_within(3, JOIN),
        back_within_of_heal(1, JOIN),
        no_failures(*SHOP_STEPS, name="shop"),
        waiting_at_break(8),
        nobody_over_capacity(2),
        let_in_after_heal(8, 10),
        *the_shop_goes_on(10),
        *nobody_loses_the_place(),
    )

    assert outcome(drill(*bounds), seen).failures() == []


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (back_within(2, JOIN), "back after the break: 2.05 s (must be ≤ 2 s)"),
        (back_within_of_heal(0.01, JOIN), "back after it is whole: 0.05 s (must be ≤ 0.01 s)"),
        (no_failures(JOIN, name="joins"), "joins: refused or broken: 20 (must be none)"),
        (waiting_at_break(9), "people in the line when it broke: 8 (must be ≥ 9)"),
        (nobody_over_capacity(1), "most people inside: 2 (must be ≤ 1)"),
        (let_in_after_heal(9, 10), "people let in within 10 s after it is whole: 8 (must be ≥ 9)"),
        (the_shop_goes_on(21)[0], "fewest answers of one while it was broken: 20 (must be ≥ 21)"),
        (Bound("nothing there", "<=", 1, lambda _: None), "nothing there: not measured (must be ≤ 1)"),
    ],
)
def test_a_bound_that_is_not_met_fails_with_what_was_expected_and_measured(
    bound: Bound, words: str, seen: Evidence
) -> None:
    [failure] = outcome(drill(bound), seen).failures()

    assert words in failure


def test_a_lost_place_an_overtaking_and_a_worse_position_fail(seen: Evidence) -> None:
    lost, _, overtaking = nobody_loses_the_place()
    first, last = seen.people[0].turns[0], seen.people[-1].turns[0]
    last.place, first.admission, first.lost = 11_000_000, 29_000_000, "turn over"

    failures = outcome(drill(lost, overtaking), seen).failures()

    assert len(failures) == 2


def test_an_incident_that_does_nothing_proves_nothing(seen: Evidence) -> None:
    seen.record.answers = [one for one in seen.record.answers if one.outcome is Outcome.OK]

    failures = outcome(drill(back_within(5, JOIN)), seen).failures()

    assert failures[0] == "nothing was refused or broken: the drill proved nothing"


def test_a_drill_that_breaks_nothing_at_all_fails(seen: Evidence) -> None:
    seen.marks = [mark for mark in seen.marks if mark.kind not in ("break", "heal")]

    assert "the drill proved nothing" in outcome(drill(), seen).failures()[0]


def test_a_stack_that_was_broken_before_fails(seen: Evidence) -> None:
    seen.record.add(answer(JOIN, 5, Outcome.REFUSED))

    assert outcome(drill(), seen).failures() == ["refused or broken before the break: 1 (must be none)"]


def test_nobody_there_before_the_break_fails(seen: Evidence) -> None:
    seen.record.answers = [one for one in seen.record.answers if one.at_s > 10]

    assert outcome(drill(), seen).failures() == ["answers before the break: 0 (must be ≥ 20)"]


def test_an_answer_that_must_never_be_fails_unless_it_is_part_of_the_drill(seen: Evidence) -> None:
    seen.record.add(answer(JOIN, 11, Outcome.BROKEN))

    assert "500, cut" in outcome(drill(), seen).failures()[0]
    assert outcome(replace(drill(), may_break=True), seen).failures() == []


def test_a_failed_audit_and_an_incident_that_stopped_fail(seen: Evidence) -> None:
    assert "the audit ended with exit code 1" in outcome(drill(), seen, audit_exit=1).failures()[0]
    assert outcome(drill(), seen, stopped="no new master").failures() == ["the incident stopped: no new master"]


# -- the record -------------------------------------------------------------------------------------------------------


def test_the_summary_tells_the_timeline_and_each_bound(seen: Evidence) -> None:
    text = report.as_text(outcome(drill(back_within(1, JOIN)), seen))

    lines = text.splitlines()
    assert "     10.0 s  BREAK   it breaks" in lines
    assert any("1 join the line: first refusal (503 ), 0.05 s after the break" in line for line in lines)
    assert any("1 join the line: answers again, 2.05 s after the break" in line for line in lines)
    assert "  FAILED  1 join the line: back after the break: 2.05 s (must be ≤ 1 s)" in lines
    assert "some FAILED" in lines


def test_the_sparkline_has_a_character_a_second(seen: Evidence) -> None:
    text = report.as_text(outcome(drill(), seen))

    [refused] = [line for line in text.splitlines() if line.strip().startswith("refused ")]
    assert refused.split()[1] == "·" * 10 + "██" + "·" * 18
    [answered] = [line for line in text.splitlines() if line.startswith("  1 join the line  answered")]
    assert answered.split()[5] == "█" * 10 + "··" + "█" * 18


def test_the_record_is_whole(seen: Evidence, tmp_path: Path) -> None:
    report.write(outcome(drill(), seen), tmp_path)

    record = json.loads((tmp_path / "record.json").read_text())
    page = (tmp_path / report.PAGE).read_text()
    assert record["passed"] is True
    assert record["outages"][JOIN]["count"] == 20
    assert record["latency"][JOIN]["during"]["refused"] == 20
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 1 + len(seen.record.answers)
    assert len((tmp_path / "people.csv").read_text().splitlines()) == 1 + len(seen.people)
    assert page.startswith("<!doctype html>")
    assert 'class="mark"' in page


def test_a_record_of_a_drill_that_broke_nothing_can_be_written(tmp_path: Path) -> None:
    report.write(outcome(drill(), Evidence(start_us=0)), tmp_path)

    assert json.loads((tmp_path / "record.json").read_text())["passed"] is False


# -- the drills that there are ----------------------------------------------------------------------------------------


def test_each_drill_is_named_as_its_file() -> None:
    files = {module.name for module in pkgutil.iter_modules(drills.__path__) if not module.ispkg}

    assert {one.name.replace("-", "_") for one in all_drills()} == files
    assert all(importlib.import_module(f"drills.{name}").__doc__ for name in files)


@pytest.mark.parametrize("one", all_drills(), ids=lambda one: one.name)
def test_each_drill_is_bounded_and_asserts_something(one: Drill) -> None:
    plan = one.plan

    assert one.bounds
    assert one.duration_s <= 300
    assert plan.at_once + plan.then_per_s * one.duration_s <= plan.people_max + plan.then_per_s * plan.within_s
    assert all(not judged.passed for judged in one.judge(Evidence(start_us=0)) if judged.bound is one.felt)
