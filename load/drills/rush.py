"""Twenty thousand people want in at the same moment (situation A, scaled to two cores that also carry the people).

Nothing is broken but the calm: everybody who comes gets a place, nobody waits a second for an answer, the told wait
comes true, the line polls within its budget, and people are let in by place.
"""

from collections import Counter

from drills.harness.crowd import Plan
from drills.harness.drill import Bound, Drill, no_failures, nobody_loses_the_place
from drills.harness.evidence import Evidence
from drills.harness.people import ETA_S, ETA_SHARE, honest_etas
from drills.harness.record import LINE_STEPS
from drills.harness.scene import Scene
from drills.harness.stage import Gate

PEOPLE, WITHIN_S, PEOPLE_MAX = 20_000, 20, 30_000
CALM_S, AFTER_S = 3, 60
RATE_PER_S = 200
SLOWEST_MS = 1_000
HONEST_MIN = 0.95
POLLS_PER_S_MAX = 2_000


async def incident(scene: Scene) -> None:
    """A few people, then the rush, then a minute in which the line moves."""
    await scene.wait(CALM_S)
    scene.breaks(f"the rush: {PEOPLE:,} people within {WITHIN_S} s")
    scene.crowd.rush(PEOPLE, WITHIN_S)
    await scene.wait(WITHIN_S)
    scene.healed("everybody has come")
    await scene.wait(AFTER_S)


def _line(seen: Evidence) -> float:
    return float(sum(1 for person in seen.people if person.turns and person.turns[0].told_s >= seen.broke_s))


def _without_a_place(seen: Evidence) -> float:
    return float(sum(not person.turns for person in seen.people))


def _slowest_ms(seen: Evidence) -> float:
    answers = seen.record.select(steps=LINE_STEPS, from_s=seen.broke_s, to_s=seen.ended_s)
    return max((answer.took_s * 1000 for answer in answers), default=0.0)


def _polls_per_s(seen: Evidence) -> float:
    polls = seen.record.select(steps=LINE_STEPS[1:], to_s=seen.ended_s)
    return float(max(Counter(int(answer.asked_s) for answer in polls).values(), default=0))


DRILL = Drill(
    name="rush",
    breaks=f"{PEOPLE:,} people join one line within {WITHIN_S} s",
    # The line is what is asked here: the shop would hold everybody, and who gets in leaves, so the rate sets the pace.
    plan=Plan(at_once=30, within_s=1, then_per_s=10, people_max=PEOPLE_MAX, buys=False, connections_max=256),
    gate=Gate(PEOPLE_MAX, RATE_PER_S),
    incident=incident,
    duration_s=CALM_S + WITHIN_S + AFTER_S,
    felt=Bound("people who joined in the rush", ">=", PEOPLE, _line),
    bounds=(
        Bound("people who came and got no place", "<=", 0, _without_a_place),
        no_failures(*LINE_STEPS, name="joins and polls"),
        Bound("slowest answer of steps 1 and 2", "<=", SLOWEST_MS, _slowest_ms, "ms"),
        Bound(
            f"told waits that came true, to {ETA_S:g} s or {ETA_SHARE:.0%}", ">=", HONEST_MIN,
            lambda seen: honest_etas(seen.people, seen.told, seen.start_us),
            "of all",
        ),
        Bound("most polls a second", "<=", POLLS_PER_S_MAX, _polls_per_s),
        *nobody_loses_the_place(),
    ),
)  # fmt: skip
