"""Both payment firms refuse connections for a minute.

Nobody can pay and nobody loses anything: step 7 answers at once that the outcome is open (202, with the options to
wait or to cancel), and the seats stay theirs. Everybody is charged soon after the firms are back, once.
"""

from booking.platform.resources import read_text
from drills.harness.crowd import Plan
from drills.harness.drill import Drill, nobody_loses_the_place
from drills.harness.events import every_ticket_comes, figure
from drills.harness.firms import break_firms, heal_firms
from drills.harness.money import (
    charged_by,
    circuit_closed_within_of_heal,
    circuit_opened,
    nobody_is_charged_twice,
    nobody_waits_for_a_firm,
    nothing_is_given_back,
    nothing_pending_within_of_heal,
    nothing_taken_while_broken,
    pending_instead_of_error,
    the_other_steps_go_on,
    told_pending,
)
from drills.harness.scene import Scene
from drills.harness.stage import Gate
from drills.harness.watch import FIRMS
from encore_stack.parts.postgres import connected

CAPACITY, RATE_PER_S = 700, 6
BEFORE_S, DOWN_S, AFTER_S = 12, 60, 35
WAIT_S = 2.4
"""Refused tries with their pauses are over within 0.6 s, on two busy cores later. A firm that hangs costs 2.5 s."""
CLOSED_S, SETTLED_S = 15, 25
PENDING_MIN = 150

_SEATS_LOST = read_text("drills.harness", "sql/pending_without_seats.sql")


async def incident(scene: Scene) -> None:
    """Twelve seconds of sale, a minute without any firm, and time to settle everything."""
    await scene.wait(BEFORE_S)
    await break_firms(scene, FIRMS, "danal and payco, all payment firms, refuse connections", mode="refuse")
    await scene.wait(DOWN_S)
    pending, lost = await scene.do(lambda: _pending_and_without_seats(scene))
    scene.figure("lost", lost)
    scene.note(f"{pending:,} payments are pending, {f'{lost:,} without' if lost else 'each with'} all of their seats")
    await heal_firms(scene, "both take connections")
    await scene.wait(AFTER_S)


def _pending_and_without_seats(scene: Scene) -> tuple[int, int]:
    instance = scene.stage.instance
    with connected(instance, instance.postgres_primary) as connection:
        [(pending, lost)] = connection.run(_SEATS_LOST)
    return int(pending), int(lost)


DRILL = Drill(
    name="gateways-down",
    breaks="both payment firms refuse connections for a minute",
    plan=Plan(at_once=40, within_s=4, then_per_s=5, people_max=600, stay_s_max=2),
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + DOWN_S + AFTER_S,
    felt=told_pending(PENDING_MIN),
    bounds=(
        circuit_opened("danal"),
        circuit_opened("payco"),
        pending_instead_of_error(),
        nobody_waits_for_a_firm(WAIT_S),
        nothing_taken_while_broken(),
        figure("pending payments whose seats are lost, after a minute", "lost", "<=", 0),
        circuit_closed_within_of_heal("danal", CLOSED_S),
        charged_by("danal", PENDING_MIN),
        nothing_pending_within_of_heal(SETTLED_S),
        nobody_is_charged_twice(),
        nothing_is_given_back(),
        every_ticket_comes(),
        *the_other_steps_go_on(),
        *nobody_loses_the_place(),
    ),
)
