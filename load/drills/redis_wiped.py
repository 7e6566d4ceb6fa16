"""Redis forgets everything in the middle of a rush.

The line lives in its people: gate and passes come back from Postgres, places from the tokens. Nobody is let in for the
rebuild hold, so that who stood in front has polled before anybody else gets the turn. Whoever comes after the loss
overtakes nobody, and at no moment does the shop hold more than its capacity.
"""

import time

from booking.platform.redis import redis
from booking.platform.redis_keys import line_key
from drills.harness.crowd import Plan
from drills.harness.drill import (
    Bound,
    Drill,
    back_within,
    let_in_after_heal,
    nobody_loses_the_place,
    nobody_over_capacity,
)
from drills.harness.evidence import Evidence
from drills.harness.scene import Scene
from drills.harness.stage import Gate

CAPACITY, RATE_PER_S = 60, 15
BEFORE_S, AFTER_S = 15, 50
FORGOTTEN_MIN = 200
HOLD_S = 15
"""The setting rebuild_hold_s: so long nobody is let in."""
RESUME_S = 18
"""By then the first person is let in again."""
BACK_S = 2
LET_IN_MIN, LET_IN_S = 100, 10


async def incident(scene: Scene) -> None:
    """Fifteen seconds of rush, the loss, and time to see the line go on."""
    waiting = line_key(scene.crowd.concert.concert_id, "waiting")
    await scene.wait(BEFORE_S)
    scene.breaks("FLUSHALL: Redis forgets everything")

    def forget() -> int:
        """How many people were in the line and are not any more."""
        before = redis("queue").zcard(waiting)
        redis("queue").flushall()
        return int(before) - int(redis("queue").zcard(waiting))

    scene.figure("forgotten", await scene.do(forget))
    wiped_us = time.time_ns() // 1000
    await scene.until(lambda: let_in_since(scene, wiped_us) is not None, 60, "somebody is let in again")
    first_us = let_in_since(scene, wiped_us) or wiped_us
    scene.figure("resumed_after_s", (first_us - wiped_us) / 1e6)
    scene.healed("people are let in again")
    await scene.wait(AFTER_S)


def let_in_since(scene: Scene, since_us: int) -> int | None:
    """The first admission after a moment, as far as passes tell; Unix time in microseconds."""
    numbers = (turn.admission for person in scene.crowd.people for turn in person.turns)
    return min((number for number in numbers if number is not None and number > since_us), default=None)


def _resumed_after_s(seen: Evidence) -> float | None:
    return seen.figures.get("resumed_after_s")


DRILL = Drill(
    name="redis-wiped",
    breaks="FLUSHALL in the middle of a rush: Redis forgets the line, the gate and who is inside",
    plan=Plan(at_once=400, within_s=5, then_per_s=RATE_PER_S, people_max=1_600),
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + HOLD_S + AFTER_S,
    felt=Bound("people in the line whom Redis forgot", ">=", FORGOTTEN_MIN, lambda seen: seen.figures.get("forgotten")),
    bounds=(
        Bound("nobody is let in after the loss for", ">=", HOLD_S, _resumed_after_s, "s"),
        Bound("and then somebody after", "<=", RESUME_S, _resumed_after_s, "s"),
        let_in_after_heal(LET_IN_MIN, LET_IN_S),
        nobody_over_capacity(CAPACITY),
        *nobody_loses_the_place(),
        back_within(BACK_S, "step1_join_queue"),
        back_within(BACK_S, "step2_queue_position"),
    ),
)
