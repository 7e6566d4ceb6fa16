"""Two records that no consumer can do anything with come into the events' topic: one that nobody can read, and an event
whose number no consumer can apply.

Each consumer tries them a few times and sets them aside: they wait as dead letters, in the database and in the
dead-letter topic, with what is known of them, and their partitions go on. Others notice at most a ticket that is a few
seconds late. Somebody looks (scripts/dead-letters) and gives them up, with a reason.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from drills.harness.crowd import Plan
from drills.harness.dead_letters import in_topic, listed, verb
from drills.harness.drill import Drill, no_failures, nobody_loses_the_place
from drills.harness.events import every_ticket_comes, figure, has_passed, put_record, sold_while_broken, ticket_within
from drills.harness.money import nobody_is_charged_twice
from drills.harness.record import LINE_STEPS, SHOP_STEPS
from drills.harness.scene import Scene
from drills.harness.stage import Gate
from encore_stack.instance import Instance

CAPACITY, RATE_PER_S = 500, 10
BEFORE_S, WAITING_S, AFTER_S = 12, 15, 8
LETTERS = 4
NUMBER = 2**40
"""Of an event among those of its reservation: more than the column takes."""
ASIDE_S, TICKET_S = 25, 15
SOLD_MIN = 80


async def incident(scene: Scene) -> None:
    """Twelve seconds of sale; the two records; they are set aside, looked at and given up."""
    instance = scene.stage.instance
    await scene.wait(BEFORE_S)
    scene.breaks("a record that nobody can read and an event that nobody can apply come into the topic")
    records = await scene.do(lambda: _put_both(instance))
    ids = [record.correlation_id for record in records]
    passed_s = await scene.until(
        lambda: all(has_passed(instance, record.partition, record.offset) for record in records),
        2 * ASIDE_S,
        "both partitions go on at both consumers",
    )
    scene.figure("passed_s", passed_s)
    scene.note(f"both partitions go on at both consumers, {passed_s:.1f} s after the break")
    letters = await scene.do(lambda: listed(instance, ids))
    scene.figure("listed", len(letters))
    scene.note(f"scripts/dead-letters lists {len(letters)}: from each consumer one for each record")
    await scene.until(lambda: in_topic(instance, letters) == len(letters), ASIDE_S, "they are in the dead-letter topic")
    scene.figure("in_topic", await scene.do(lambda: in_topic(instance, letters)))
    await scene.wait(WAITING_S)
    await scene.do(lambda: [verb(instance, "discard", str(one["id"]), "--reason", "a drill") for one in letters])
    scene.figure("left", len(await scene.do(lambda: listed(instance, ids))))
    scene.healed("the dead letters are given up, with a reason (scripts/dead-letters discard)")
    await scene.wait(AFTER_S)


@dataclass(frozen=True, slots=True)
class Put:
    """A record that stands in the topic."""

    correlation_id: str
    partition: int
    offset: int


def _put_both(instance: Instance) -> list[Put]:
    unreadable, not_applicable = (f"drill-{kind}-{uuid.uuid4().hex}" for kind in ("unreadable", "not-applicable"))
    return [
        _put(instance, unreadable, 0, b"\xff\x00 no event"),
        _put(instance, not_applicable, 1, _not_applicable(not_applicable)),
    ]


def _put(instance: Instance, correlation_id: str, partition: int, value: bytes) -> Put:
    offset = put_record(instance, value, partition=partition, correlation_id=correlation_id)
    return Put(correlation_id, partition, offset)


def _not_applicable(correlation_id: str) -> bytes:
    event = {
        "event_id": str(uuid.uuid4()),
        "type": "reservation.confirmed",
        "reservation_id": str(uuid.uuid4()),
        "seq": NUMBER,
        "occurred_at": datetime.now(UTC).isoformat(),
        "correlation_id": correlation_id,
        "data": {},
    }
    return json.dumps(event).encode()


DRILL = Drill(
    name="poison-record",
    breaks="a record that nobody can read and an event that no consumer can apply come into the events' topic",
    plan=Plan(at_once=60, within_s=4, then_per_s=8, people_max=800, stay_s_max=2),
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + ASIDE_S + WAITING_S + AFTER_S,
    felt=figure("dead letters in scripts/dead-letters list, of two records at two consumers", "listed", ">=", LETTERS),
    bounds=(
        no_failures(*LINE_STEPS, *SHOP_STEPS, name="all steps"),
        sold_while_broken(SOLD_MIN),
        figure("both partitions go on at both consumers, after the break", "passed_s", "<=", ASIDE_S, "s"),
        figure(
            "of them in the dead-letter topic, with error, attempts, origin, correlation id", "in_topic", ">=", LETTERS
        ),
        ticket_within(TICKET_S),
        every_ticket_comes(),
        figure("dead letters left that nobody has dealt with", "left", "<=", 0),
        nobody_is_charged_twice(),
        *nobody_loses_the_place(),
    ),
)
