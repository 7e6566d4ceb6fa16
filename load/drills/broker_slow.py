"""One of three Kafka brokers becomes slow, but does not die: it runs a tenth of the time and keeps its heartbeats.

Kafka does nothing about it: who leads goes on leading and who is in sync stays so, and every event waits for it.
Somebody isolates it (scripts/stack isolate): leaders and replicas move to the other two, and events flow although it is
still slow. Well again it gets its replicas back (scripts/stack rejoin). People who buy notice only a later ticket.
"""

from drills.harness.crowd import Plan
from drills.harness.drill import Drill, no_failures, nobody_loses_the_place
from drills.harness.events import (
    busiest_broker,
    every_ticket_comes,
    figure,
    node_of,
    partitions_of,
    publish_delay_s,
    sold_while_broken,
    ticket_within,
)
from drills.harness.money import nobody_is_charged_twice
from drills.harness.record import LINE_STEPS, SHOP_STEPS
from drills.harness.scene import Scene
from drills.harness.slow import Slowed
from drills.harness.stage import Gate, Topology

CAPACITY, RATE_PER_S = 200, 10
BEFORE_S, SLOW_S, ISOLATED_S, AFTER_S = 12, 15, 20, 12
STOPPED_S, RUNNING_S = 0.9, 0.1
SETTLE_S = 3
MOVED_S_MAX = 30
SLOW_MIN_S, ISOLATED_MAX_S, SHARE_MAX = 0.3, 0.5, 0.5
TICKET_S = 20
SOLD_MIN = 80


async def incident(scene: Scene) -> None:
    """Twelve seconds of sale; the broker is slow, then slow and isolated, then well."""
    stage, instance = scene.stage, scene.stage.instance
    await scene.wait(BEFORE_S)
    victim = await scene.do(lambda: busiest_broker(instance))
    pid = stage.stack.supervisor.processes()[victim].pid
    slowed = Slowed(lambda: [pid], stopped_s=STOPPED_S, running_s=RUNNING_S)
    scene.undo_later(lambda: stage.stack.rejoin(victim))
    scene.undo_later(slowed.heal)
    scene.breaks(
        f"{victim}, which leads the most partitions, runs {RUNNING_S / (RUNNING_S + STOPPED_S):.0%} of the time"
    )
    slowed.begin()
    slow_s = await _publish_delay(scene, SLOW_S)
    scene.figure("slow_s", slow_s)
    in_sync = await scene.do(lambda: sum(node_of(victim) in one.in_sync for one in partitions_of(instance)))
    scene.note(f"{victim} is in sync with {in_sync} partitions: Kafka itself does nothing about it")
    began_s = scene.clock()
    moved = await scene.do(lambda: stage.stack.isolate(victim))
    scene.figure("took_s", scene.clock() - began_s)
    scene.note(f"isolated within {scene.clock() - began_s:.1f} s: {moved} partitions are on the other two")
    isolated_s = await _publish_delay(scene, ISOLATED_S)
    scene.figure("isolated_s", isolated_s)
    scene.figure("share", isolated_s / slow_s)
    await scene.do(slowed.heal)
    scene.healed(f"{victim} runs as ever")
    began_s = scene.clock()
    await scene.do(lambda: stage.stack.rejoin(victim))
    scene.figure("rejoined_s", scene.clock() - began_s)
    scene.note(f"{victim} has its replicas back, {scene.clock() - began_s:.1f} s later")
    await scene.wait(AFTER_S)


async def _publish_delay(scene: Scene, wait_s: float) -> float:
    """Wait, and say how long the median event took to Kafka, without those of the first seconds."""
    from_s = scene.clock() + SETTLE_S
    await scene.wait(wait_s)
    median_s, p95_s = await scene.do(lambda: publish_delay_s(scene, from_s))
    scene.note(f"events' way to Kafka: median {median_s * 1000:,.0f} ms, p95 {p95_s * 1000:,.0f} ms")
    return median_s


DRILL = Drill(
    name="broker-slow",
    breaks="one of three Kafka brokers runs a tenth of the time, and is isolated by moving leaders and replicas away",
    plan=Plan(at_once=60, within_s=4, then_per_s=8, people_max=800, stay_s_max=2),
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + SLOW_S + ISOLATED_S + AFTER_S,
    topology=Topology(brokers=3),
    felt=figure("events' way to Kafka with the slow broker, median", "slow_s", ">=", SLOW_MIN_S, "s"),
    bounds=(
        no_failures(*LINE_STEPS, *SHOP_STEPS, name="all steps"),
        sold_while_broken(SOLD_MIN),
        figure("isolating it took", "took_s", "<=", MOVED_S_MAX, "s"),
        figure("events' way to Kafka once it is isolated, median", "isolated_s", "<=", ISOLATED_MAX_S, "s"),
        figure("the same, as a share of the time with the slow broker", "share", "<=", SHARE_MAX),
        ticket_within(TICKET_S),
        every_ticket_comes(),
        figure("its replicas back in sync, once it is well, after", "rejoined_s", "<=", MOVED_S_MAX, "s"),
        nobody_is_charged_twice(),
        *nobody_loses_the_place(),
    ),
)
