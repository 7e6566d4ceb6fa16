"""One consumer becomes slow: the function that issues tickets runs a sixtieth of the time, and events wait for it.

People who buy notice nothing but a later ticket. The other consumer has a group of its own and keeps up, so seats left
are told as ever. The alarm on the slow one's lag is raised, and no other. When the function runs as ever it catches up,
every ticket comes, and the alarm is over.
"""

from typing import Literal

from drills.harness.alarms import has_been_in, is_in
from drills.harness.crowd import Plan
from drills.harness.drill import Bound, Drill, no_failures, nobody_loses_the_place
from drills.harness.events import every_ticket_comes, figure, sold_while_broken, ticket_within_of_heal
from drills.harness.money import nobody_is_charged_twice
from drills.harness.record import LINE_STEPS, SHOP_STEPS
from drills.harness.scene import Scene
from drills.harness.slow import Slowed, processes_of_function
from drills.harness.stage import Gate
from drills.harness.watch import LAG
from encore_stack.alarms import ALARM, OK

SLOW, OTHER = "on_reservation_events_issue_tickets", "on_reservation_events_count_sales"
CAPACITY, RATE_PER_S = 500, 10
BEFORE_S, SLOW_S, AFTER_S = 12, 40, 10
STOPPED_S, RUNNING_S = 15.0, 0.25
ALARM_S, OVER_S = 45, 60
WAITING_MIN, WAITING_MAX = 300, 250
"""Of about 50 events a second: the slow one is 6 s behind and more, the other never 5 s."""
TICKET_S = 15
SOLD_MIN = 150


async def incident(scene: Scene) -> None:
    """Twelve seconds of sale; the function is slow until its alarm is raised, and a while longer; then it is well."""
    instance = scene.stage.instance
    await scene.until(lambda: is_in(instance, SLOW, OK) and is_in(instance, OTHER, OK), OVER_S, "both alarms are ok")
    scene.note("the alarms on both consumers' lag are ok")
    await scene.wait(BEFORE_S)
    slowed = Slowed(lambda: processes_of_function(instance, SLOW), stopped_s=STOPPED_S, running_s=RUNNING_S)
    scene.undo_later(slowed.heal)
    scene.breaks(f"{SLOW} runs {RUNNING_S / (RUNNING_S + STOPPED_S):.1%} of the time")
    broke_s = scene.clock()
    slowed.begin()
    alarm_s = await scene.until(lambda: is_in(instance, SLOW, ALARM), 2 * ALARM_S, "the alarm on its lag")
    scene.figure("alarm_s", alarm_s)
    scene.note(f"the alarm on its lag is raised, {alarm_s:.1f} s after the break (scripts/status)")
    await scene.wait(max(0.0, SLOW_S - (scene.clock() - broke_s)))
    await scene.do(slowed.heal)
    scene.healed(f"{SLOW} runs as ever")
    over_s = await scene.until(lambda: is_in(instance, SLOW, OK), 2 * OVER_S, "the end of the alarm")
    scene.figure("over_s", over_s)
    scene.note(f"the alarm is over, {over_s:.1f} s after it is whole: LocalStack looks half a minute back")
    scene.figure("other_alarms", await scene.do(lambda: has_been_in(instance, OTHER, ALARM, scene.clock())))
    await scene.wait(AFTER_S)


def most_waiting(function: str, comparison: Literal["<=", ">="], bound: float) -> Bound:
    """The most events that waited for a consumer at one moment, from the break on."""
    label = f"most events that waited for {function}"
    return Bound(label, comparison, bound, lambda seen: seen.most(f"{LAG}: {function}"))


DRILL = Drill(
    name="consumer-slow",
    breaks="the function that issues tickets runs a sixtieth of the time for 40 s, and the alarm on its lag is raised",
    plan=Plan(at_once=60, within_s=4, then_per_s=8, people_max=1_600, stay_s_max=2),
    # Whoever waits for a ticket has left the shop, so it is never full.
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + SLOW_S + OVER_S + AFTER_S,
    felt=most_waiting(SLOW, ">=", WAITING_MIN),
    bounds=(
        no_failures(*LINE_STEPS, *SHOP_STEPS, name="all steps"),
        sold_while_broken(SOLD_MIN),
        figure("its alarm is raised after the break", "alarm_s", "<=", ALARM_S, "s"),
        most_waiting(OTHER, "<=", WAITING_MAX),
        figure("alarms of the other consumer", "other_alarms", "<=", 0),
        ticket_within_of_heal(TICKET_S),
        every_ticket_comes(),
        figure("its alarm is over, after it is whole", "over_s", "<=", OVER_S, "s"),
        nobody_is_charged_twice(),
        *nobody_loses_the_place(),
    ),
)
