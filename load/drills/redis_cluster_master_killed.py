"""The cluster's master of the hash slot in which the line lies is killed (three masters, each with a replica).

All keys of one concert's line are in one slot, so this node is all that the line has. Its replica takes over the slots;
the others' slots go on meanwhile. Places are kept by the tokens. The old master comes back as a replica.
"""

from drills.harness.crowd import Plan
from drills.harness.drill import (
    Drill,
    back_within,
    nobody_loses_the_place,
    nobody_over_capacity,
    refused_at_all,
    the_shop_goes_on,
    waiting_at_break,
)
from drills.harness.failover import comes_back_as_replica, kill_the_master_of_the_line
from drills.harness.record import LINE_STEPS
from drills.harness.scene import Scene
from drills.harness.stage import Gate, Topology

CAPACITY, RATE_PER_S = 100, 20
BEFORE_S, DOWN_S, AFTER_S = 15, 8, 20
BACK_S = 5
WAITING_MIN = 300
SHOP_ANSWERS_MIN = 5


async def incident(scene: Scene) -> None:
    """Fifteen seconds of rush, the kill, the failover, the old master's return, twenty seconds more."""
    await kill_the_master_of_the_line(scene, before_s=BEFORE_S, down_s=DOWN_S, after_s=AFTER_S)


DRILL = Drill(
    name="redis-cluster-master-killed",
    breaks="kill -9 of the cluster's master that has the line's hash slot, under load; its replica takes over",
    plan=Plan(at_once=800, within_s=6, then_per_s=RATE_PER_S, people_max=2_500, stay_s_max=4),
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + DOWN_S + AFTER_S,
    topology=Topology(redis="cluster"),
    felt=refused_at_all(*LINE_STEPS),
    bounds=(
        waiting_at_break(WAITING_MIN),
        *(back_within(BACK_S, step) for step in LINE_STEPS),
        *nobody_loses_the_place(),
        nobody_over_capacity(CAPACITY),
        *the_shop_goes_on(SHOP_ANSWERS_MIN),
        comes_back_as_replica(),
    ),
)
