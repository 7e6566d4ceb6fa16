"""The drill harness on the real stack: a small drill that passes, and one whose incident does nothing."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from booking.platform.settings import settings
from drills.harness.crowd import Plan
from drills.harness.drill import Bound, Drill, nobody_loses_the_place, refused_at_all
from drills.harness.evidence import Evidence
from drills.harness.record import LINE_STEPS, SHOP_STEPS
from drills.harness.run import run_drill
from drills.harness.scene import Scene
from drills.harness.stage import Gate, Stage
from encore_stack.instance import Instance, function_environment
from encore_stack.parts import Unhealthy, part_named


@pytest.fixture
def stage(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for name, value in function_environment(instance).items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield Stage(instance)
    settings.cache_clear()


async def kill_the_gateway(scene: Scene) -> None:
    """Who is cut off asks again with the same key; the supervisor starts the gateway anew."""
    before = scene.stage.stack.supervisor.processes()["gateway"].pid

    def is_back() -> bool:
        process = scene.stage.stack.supervisor.processes()["gateway"]
        if process.pid in (0, before):
            return False
        try:
            part_named("gateway").probe(scene.stage.instance)
        except Unhealthy:
            return False
        return True

    await scene.wait(1.5)
    scene.breaks("kill -9 of the fast gateway")
    scene.stage.kill("gateway")
    await scene.until(is_back, 20, "the gateway is back")
    scene.healed("the supervisor has started it again")
    await scene.wait(1)


async def do_nothing(scene: Scene) -> None:
    await scene.wait(1)
    scene.breaks("nothing")
    scene.healed("nothing")
    await scene.wait(0.2)


def _tickets(seen: Evidence) -> float:
    return float(sum(person.outcome == "ticket" for person in seen.people))


def _gave_up(seen: Evidence) -> float:
    return float(sum(person.outcome.startswith("gave up") for person in seen.people))


DRILL = Drill(
    name="gateway-killed",
    breaks="kill -9 of the fast gateway",
    plan=Plan(at_once=12, within_s=0.5, then_per_s=6, people_max=60, think_s_max=0.2),
    gate=Gate(capacity=30, rate_per_s=30),
    incident=kill_the_gateway,
    duration_s=4,
    felt=refused_at_all(*LINE_STEPS, *SHOP_STEPS),
    bounds=(
        Bound("people with a ticket", ">=", 12, _tickets),
        Bound("people who gave up", "<=", 0, _gave_up),
        *nobody_loses_the_place(),
    ),
    may_break=True,
)


def test_a_drill_breaks_heals_and_audits(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_drill(stage, DRILL, target="gateway", duration_s=DRILL.duration_s, command="scripts/drill")

    said = capsys.readouterr().out
    assert outcome.failures() == [], said
    assert "gateway-killed passed" in said


def test_a_drill_whose_incident_does_nothing_fails(stage: Stage) -> None:
    hollow = replace(DRILL, incident=do_nothing, duration_s=2, bounds=(), may_break=False)

    outcome = run_drill(stage, hollow, target="gateway", duration_s=2, command="scripts/drill")

    assert outcome.failures()[0] == "nothing was refused or broken: the drill proved nothing"
