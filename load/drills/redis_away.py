"""Redis is away for a minute.

Whoever has a pass goes on shopping: the pass is signed, and Postgres alone decides who gets a seat. Whoever waits is
told when to ask again (503 with Retry-After) and stands at the same place when Redis is back.
"""

from drills.harness.crowd import Plan
from drills.harness.drill import (
    Drill,
    back_within_of_heal,
    let_in_after_heal,
    nobody_loses_the_place,
    nobody_over_capacity,
    refused_at_all,
    the_shop_goes_on,
    waiting_at_break,
)
from drills.harness.record import LINE_STEPS
from drills.harness.scene import Scene
from drills.harness.stage import Gate

CAPACITY, RATE_PER_S = 400, 10
BEFORE_S, AWAY_S, AFTER_S = 15, 60, 30
BACK_S = 5
LET_IN_MIN, LET_IN_S = 60, 15
WAITING_MIN = 200
SHOP_ANSWERS_MIN = 30


async def incident(scene: Scene) -> None:
    """Fifteen seconds of rush, a minute without Redis, and time to see the line go on."""
    await scene.wait(BEFORE_S)
    scene.breaks("Redis is killed and held down")
    await scene.do(lambda: scene.stage.stack.stop("redis"))
    await scene.wait(AWAY_S)
    await scene.do(lambda: scene.stage.stack.start("redis"))
    scene.healed("Redis is back")
    await scene.wait(AFTER_S)


DRILL = Drill(
    name="redis-away",
    breaks="Redis is held down for a minute",
    # People stay long: those inside when Redis goes look, reserve, give back and pay until it is back.
    plan=Plan(at_once=600, within_s=5, then_per_s=10, people_max=1_600, stay_s_max=70, think_s_max=2),
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + AWAY_S + AFTER_S,
    felt=refused_at_all(*LINE_STEPS),
    bounds=(
        waiting_at_break(WAITING_MIN),
        *the_shop_goes_on(SHOP_ANSWERS_MIN),
        *(back_within_of_heal(BACK_S, step) for step in LINE_STEPS),
        let_in_after_heal(LET_IN_MIN, LET_IN_S),
        nobody_over_capacity(CAPACITY),
        *nobody_loses_the_place(),
    ),
)
