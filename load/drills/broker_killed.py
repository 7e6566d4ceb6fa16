"""One of three Kafka brokers is killed while people pay, and stays away for a while.

Each record is on all three and acknowledged once two have it, so the two that are left elect leaders and go on: nobody
is refused anything, no event is lost, tickets come a few seconds later. The broker catches up when it is back.
"""

from drills.harness.crowd import Plan
from drills.harness.drill import Drill, no_failures, nobody_loses_the_place
from drills.harness.events import (
    all_in_sync,
    all_led_without,
    busiest_broker,
    events_flow_within_of_heal,
    events_waited,
    every_ticket_comes,
    figure,
    looks,
    no_event_waits,
    node_of,
    sold_while_broken,
    ticket_within,
)
from drills.harness.money import nobody_is_charged_twice
from drills.harness.record import LINE_STEPS, SHOP_STEPS
from drills.harness.scene import Scene
from drills.harness.stage import Gate, Topology

CAPACITY, RATE_PER_S = 200, 10
BEFORE_S, DOWN_S, AFTER_S = 12, 20, 15
LEADERS_S_MAX, IN_SYNC_S_MAX = 20, 45
FELT_S, WAIT_S = 1, 12
TICKET_S = 20
SOLD_MIN = 50


async def incident(scene: Scene) -> None:
    """Twelve seconds of sale, the kill, new leaders, twenty seconds on two brokers, the third back in sync."""
    stage, instance = scene.stage, scene.stage.instance
    await scene.wait(BEFORE_S)
    victim = await scene.do(lambda: busiest_broker(instance))
    scene.undo_later(lambda: stage.stack.start(victim))
    scene.breaks(f"kill -9 of {victim}, which leads the most partitions; it is held down")
    await scene.do(lambda: stage.kill_and_hold(victim))
    led = all_led_without(node_of(victim))
    took_s = await scene.until(lambda: looks(instance, led), LEADERS_S_MAX, "every partition has another leader")
    scene.figure("leaders_s", took_s)
    scene.note(f"every partition is led by another broker, {took_s:.1f} s after the kill")
    await scene.wait(DOWN_S)
    await scene.do(lambda: stage.stack.start(victim))
    scene.healed(f"{victim} is back")
    all_three = all_in_sync(len(instance.brokers))
    took_s = await scene.until(lambda: looks(instance, all_three), IN_SYNC_S_MAX, "all replicas are in sync")
    scene.figure("in_sync_s", took_s)
    scene.note(f"every partition is in sync on three brokers again, {took_s:.1f} s later")
    await scene.wait(AFTER_S)


DRILL = Drill(
    name="broker-killed",
    breaks="kill -9 of one of three Kafka brokers under load; the replicas that are in sync go on",
    plan=Plan(at_once=60, within_s=4, then_per_s=8, people_max=800, stay_s_max=2),
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + DOWN_S + AFTER_S,
    topology=Topology(brokers=3),
    felt=events_waited(FELT_S),
    bounds=(
        no_failures(*LINE_STEPS, *SHOP_STEPS, name="all steps"),
        sold_while_broken(SOLD_MIN),
        figure("every partition has another leader after", "leaders_s", "<=", LEADERS_S_MAX, "s"),
        no_event_waits(WAIT_S),
        ticket_within(TICKET_S),
        every_ticket_comes(),
        figure("in sync on all brokers, after it is back", "in_sync_s", "<=", IN_SYNC_S_MAX, "s"),
        events_flow_within_of_heal(5),
        nobody_is_charged_twice(),
        *nobody_loses_the_place(),
    ),
)
