"""The first payment firm refuses connections for half a minute.

Nobody notices: where a connection is refused surely nothing was taken, so the same payment turns to the other firm and
is answered by it. After some refusals the circuit opens and payments begin at the other firm; one request now and then
tries whether the first is back, and when it is, payments go to it again. Only whom the break met with the answer on its
way wait for that firm (202): it may have taken their money.
"""

from drills.harness.crowd import Plan
from drills.harness.drill import Drill, nobody_loses_the_place
from drills.harness.events import every_ticket_comes, sold_while_broken, ticket_within_of_heal
from drills.harness.firms import break_firms, heal_firms
from drills.harness.money import (
    charged_by,
    charged_by_both,
    charges_again_within_of_heal,
    circuit_closed_within_of_heal,
    circuit_opened,
    left_in_peace_after_heal,
    nobody_else_is_told_pending,
    nobody_is_charged_twice,
    nobody_waits_for_a_firm,
    nothing_is_given_back,
    pending_instead_of_error,
    the_other_steps_go_on,
)
from drills.harness.scene import Scene
from drills.harness.stage import Gate

CAPACITY, RATE_PER_S = 500, 10
BEFORE_S, DOWN_S, AFTER_S = 12, 30, 20
WAIT_S = 2.4
"""Refused tries with their pauses are over within 0.3 s, on two busy cores later. A firm that hangs costs 2.5 s."""
CLOSED_S, BACK_S = 10, 10
"""A circuit is open for 5 s (``circuit_open_s``) and read every 2 s (``circuit_read_every_s``)."""
SOLD_MIN, PAYCO_MIN, TICKET_S = 150, 150, 10


async def incident(scene: Scene) -> None:
    """Twelve seconds of sale, half a minute with one firm, twenty seconds with both again."""
    await scene.wait(BEFORE_S)
    await break_firms(scene, ["danal"], "danal, the first payment firm, refuses connections", mode="refuse")
    await scene.wait(DOWN_S)
    await heal_firms(scene, "danal takes connections")
    await scene.wait(AFTER_S)


DRILL = Drill(
    name="gateway-down",
    breaks="the first payment firm refuses connections for half a minute",
    plan=Plan(at_once=60, within_s=4, then_per_s=8, people_max=700, stay_s_max=2),
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=BEFORE_S + DOWN_S + AFTER_S,
    felt=circuit_opened("danal"),
    bounds=(
        pending_instead_of_error(),
        nobody_else_is_told_pending(),
        nobody_waits_for_a_firm(WAIT_S),
        sold_while_broken(SOLD_MIN),
        charged_by("payco", PAYCO_MIN),
        charged_by_both(),
        nobody_is_charged_twice(),
        circuit_closed_within_of_heal("danal", CLOSED_S),
        charges_again_within_of_heal("danal", BACK_S),
        left_in_peace_after_heal("payco", BACK_S),
        nothing_is_given_back(),
        ticket_within_of_heal(TICKET_S),
        every_ticket_comes(),
        *the_other_steps_go_on(),
        *nobody_loses_the_place(),
    ),
)
