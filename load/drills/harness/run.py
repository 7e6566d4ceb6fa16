"""One drill from its first visitor to its record: play, judge, audit, write."""

import asyncio
import contextlib
import math
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

from artillery.report import Audit
from booking.payment.books import BookUnreadable
from drills.harness import report
from drills.harness.books import movements
from drills.harness.crowd import Crowd
from drills.harness.drill import Drill, Judged
from drills.harness.evidence import FAILURES, Evidence, Mark
from drills.harness.people import Person
from drills.harness.scene import IncidentFailed, Scene, tell
from drills.harness.stage import RECORDS, Stage
from drills.harness.watch import watch
from encore_stack import progress
from encore_stack.instance import PROJECT_DIR

AUDIT_SETTLE_S = 120
_SEATS_EACH = 2
_STATUS_S = 5.0
_INCIDENT_LATE_S = 120
_RECORDS_KEPT = 30


def run_drill(stage: Stage, drill: Drill, *, target: str, duration_s: int, command: str) -> report.Outcome:
    """Play the drill on the stage, judge and audit it, print what came of it, and write its record."""
    print(f"{drill.name}: {drill.breaks}")
    started = datetime.now(UTC)
    evidence, stopped = asyncio.run(_play(stage, drill, target, duration_s / drill.duration_s))
    if drill.afterwards:
        drill.afterwards(stage, evidence)
    with progress.step(f"the audit waits for work in flight, at most {AUDIT_SETTLE_S} s"):
        audit = _audit(stage)
    with contextlib.suppress(BookUnreadable):
        evidence.books = movements(stage.instance)
    judged: list[Judged] = drill.judge(evidence)
    outcome = report.Outcome(drill, target, started, command, evidence, judged, audit, stopped)
    folder = stage.instance.dir / RECORDS / f"{started:%Y%m%dT%H%M%SZ}-{drill.name}"
    folder.mkdir(parents=True)
    for old in sorted(folder.parent.iterdir())[:-_RECORDS_KEPT]:
        shutil.rmtree(old)
    report.write(outcome, folder)
    print(report.as_text(outcome))
    print(f"  the record: {(folder / report.PAGE).relative_to(stage.instance.project_dir)}\n", flush=True)
    return outcome


async def _play(stage: Stage, drill: Drill, target: str, longer: float) -> tuple[Evidence, str]:
    """The evidence, and why the incident stopped early, if it did."""
    plan = replace(drill.plan, people_max=math.ceil(drill.plan.people_max * longer))
    seats = plan.people_max * _SEATS_EACH if plan.buys else 1
    concert = await asyncio.to_thread(stage.open_concert, drill.name, drill.gate, seats)
    crowd = Crowd(plan, concert, stage.url(target))
    evidence = Evidence(time.time_ns() // 1000, crowd.record, crowd.people, crowd.told, crowd.tickets)
    _mark(evidence, Mark(crowd.clock(), "begin", _who_comes(drill)))
    coming = asyncio.create_task(crowd.come())
    looking = [
        asyncio.create_task(_tell_status(crowd)),
        asyncio.create_task(watch(stage.instance, crowd.clock, evidence.samples)),
    ]
    try:
        scene = Scene(stage, crowd, evidence, longer)
        stopped = await happen(drill.incident, scene, drill.duration_s * longer + _INCIDENT_LATE_S)
    finally:
        _mark(evidence, Mark(crowd.clock(), "end", "nobody comes any more; who waits goes home, who is inside pays"))
        await crowd.go_home()
        for task in looking:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await coming
    return evidence, stopped


async def happen(incident: Callable[[Scene], Awaitable[None]], scene: Scene, within_s: float) -> str:
    """Let it happen, and put right what it broke, however it ends. Returns why it stopped early, if it did."""
    try:
        async with asyncio.timeout(within_s):
            await incident(scene)
    except IncidentFailed as fault:
        return str(fault)
    except TimeoutError:
        return f"the incident had not ended after {within_s:.0f} s"
    finally:
        await asyncio.to_thread(scene.stage.undo.close)
    return ""


async def _tell_status(crowd: Crowd) -> None:
    """A line every few seconds: what the people do, and how they fare."""
    while True:
        seen = len(crowd.record.answers)
        await asyncio.sleep(_STATUS_S)
        news = crowd.record.answers[seen:]
        bad = sum(answer.outcome in FAILURES for answer in news)
        doing = Counter(_doing(person) for person in crowd.people)
        counts = ", ".join(f"{doing[name]:,} {name}" for name in ("waiting", "inside", "with a ticket"))
        rate = f"{len(news) / _STATUS_S:,.0f} answers/s" + (f", {bad / _STATUS_S:,.0f} of them refused" if bad else "")
        progress.line(f"{crowd.clock():6.1f} s  {counts}; {rate}")


def _doing(person: Person) -> str:
    if person.outcome == "ticket":
        return "with a ticket"
    if person.outcome != "under way":
        return "gone"
    return "inside" if person.turns and person.turns[-1].admission else "waiting"


def _who_comes(drill: Drill) -> str:
    plan, gate = drill.plan, drill.gate
    then = f", then {plan.then_per_s:g} a second" if plan.then_per_s else ""
    return (
        f"{plan.at_once:,} people come within {plan.within_s:g} s{then};"
        f" the shop holds {gate.capacity:,}, {gate.rate_per_s:g} a second are let in"
    )


def _mark(evidence: Evidence, mark: Mark) -> None:
    evidence.marks.append(mark)
    tell(mark)


def _audit(stage: Stage) -> Audit:
    command = [str(PROJECT_DIR / "scripts" / "audit"), "--settle", str(AUDIT_SETTLE_S)]
    environment = {**os.environ, "ENCORE_INSTANCE": stage.instance.name}
    done = subprocess.run(
        command, check=False, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return Audit(done.returncode, done.stdout)
