"""The only Kafka broker is away for half a minute.

Nobody is refused anything: an event is a row of the transaction that it tells of, and no function that people wait for
talks to Kafka. Tickets wait, and all come soon after the broker is back.
"""

from drills.harness.crowd import Plan
from drills.harness.drill import Drill, no_failures, nobody_loses_the_place
from drills.harness.events import (
    events_flow_within_of_heal,
    events_waited,
    every_ticket_comes,
    sold_while_broken,
    ticket_within_of_heal,
)
from drills.harness.money import nobody_is_charged_twice
from drills.harness.record import LINE_STEPS, SHOP_STEPS
from drills.harness.scene import Scene
from drills.harness.stage import Gate

CAPACITY, RATE_PER_S = 500, 10
BEFORE_S, AWAY_S, AFTER_S = 12, 30, 25
FELT_S = 20
FLOW_S, TICKET_S = 20, 25
SOLD_MIN = 100


async def incident(scene: Scene) -> None:
    """Twelve seconds of sale, the kill, half a minute without Kafka, and time for all tickets to come."""
    stack = scene.stage.stack
    await scene.wait(BEFORE_S)
    scene.undo_later(lambda: stack.start("kafka"))
    scene.breaks("kill -9 of the only broker; it is held down")
    await scene.do(lambda: scene.stage.kill_and_hold("kafka"))
    await scene.wait(AWAY_S)
    await scene.do(lambda: stack.start("kafka"))
    scene.healed("the broker is back")
    await scene.wait(AFTER_S)


DRILL = Drill(
    name="broker-outage",
    breaks="the only Kafka broker is killed and held down for half a minute",
    plan=Plan(at_once=60, within_s=4, then_per_s=8, people_max=800, stay_s_max=2),
    # Whoever waits for a ticket has left the shop, so it is never full.
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + AWAY_S + AFTER_S,
    felt=events_waited(FELT_S),
    bounds=(
        no_failures(*LINE_STEPS, *SHOP_STEPS, name="all steps"),
        sold_while_broken(SOLD_MIN),
        events_flow_within_of_heal(FLOW_S),
        ticket_within_of_heal(TICKET_S),
        every_ticket_comes(),
        nobody_is_charged_twice(),
        *nobody_loses_the_place(),
    ),
)
