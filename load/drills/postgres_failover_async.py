"""The Postgres primary is killed while people buy, and replicates asynchronously: its last commits may be lost.

Who reserves or pays is told when to ask again (503 with Retry-After) until the replica is promoted; reads never stop,
and the line goes on. What was acknowledged and is lost is counted and told. What it means is the new primary's to say:
a reservation that is not there is gone, and its seats are free; a payment whose outcome is lost is asked for again; a
charge whose payment is lost is refunded, and the last events are published again (scripts/after-failover).
"""

from drills.harness.crowd import Plan
from drills.harness.drill import Drill, back_within, no_failures, nobody_loses_the_place, refused_at_all
from drills.harness.postgres import (
    charges_settled,
    comes_back,
    counted,
    fail_over,
    loses_some,
    refund_lost_charges,
)
from drills.harness.record import LINE_STEPS
from drills.harness.scene import Scene
from drills.harness.stage import Gate

CAPACITY, RATE_PER_S = 400, 40
BEFORE_S, DOWN_S, AFTER_S = 15, 6, 15
BACK_S = 6
COMMITS_MIN = 500
READS = ("step3_concerts", "step4_schedules", "step5_seats")
WRITES = ("step6_reserve", "step7_pay", "reservation")


async def incident(scene: Scene) -> None:
    """Fifteen seconds of sale, the kill, the promotion, the old primary's return, fifteen seconds more."""
    await fail_over(scene, before_s=BEFORE_S, down_s=DOWN_S, after_s=AFTER_S)


DRILL = Drill(
    name="postgres-failover-async",
    breaks="kill -9 of the Postgres primary under load; its asynchronous replica is promoted",
    # The shop is never full: slots are the line's business, and its drills are others.
    plan=Plan(
        at_once=100, within_s=3, then_per_s=10, people_max=800, stay_s_max=10, think_s_max=0.6, may_lose_commits=True
    ),
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + DOWN_S + AFTER_S,
    felt=refused_at_all(*WRITES),
    bounds=(
        no_failures(*READS, name="reads (steps 3 to 5)"),
        no_failures(*LINE_STEPS, name="joins and polls"),
        *(back_within(BACK_S, step) for step in WRITES),
        counted(COMMITS_MIN),
        loses_some(),
        *charges_settled(may_be_lost=True),
        *nobody_loses_the_place(),
        comes_back(),
    ),
    afterwards=refund_lost_charges,
)
