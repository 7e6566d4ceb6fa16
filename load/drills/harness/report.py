"""What came of a drill: a timeline and its bounds for the terminal; a page, a JSON file and all answers for later."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from artillery.charts import Series, line_chart
from artillery.page import mark, page, table
from artillery.report import Audit
from artillery.results import STEPS
from drills.harness.drill import Drill, Judged, proved_nothing
from drills.harness.evidence import FAILURES, PHASES, Evidence, Latency, Mark
from drills.harness.people import most_inside, overtaken, places_lost, worse_positions, write_people
from drills.harness.record import Outcome as Went

PAGE = "report.html"
_COLUMNS_MAX = 90
_BARS = "▁▂▃▄▅▆▇█"
_EXAMPLES_MAX = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that a record tells. ``stopped`` says why the incident stopped early, if it did."""

    drill: Drill
    target: str
    started: datetime
    command: str
    evidence: Evidence
    judged: Sequence[Judged]
    audit: Audit
    stopped: str = ""

    def failures(self) -> list[str]:
        """Why the drill has failed, in words; nothing when it has passed."""
        words = [f"the incident stopped: {self.stopped}"] if self.stopped else []
        if proved_nothing(self.drill, self.judged):
            words.append("nothing was refused or broken: the drill proved nothing")
        words += [one.words for one in self.judged if not one.passed]
        if self.audit.exit_code:
            words.append(f"the audit ended with exit code {self.audit.exit_code}; see audit.txt")
        return words


def write(outcome: Outcome, folder: Path) -> None:
    """The page, the record as JSON, every answer and every turn as CSV, what the audit said."""
    (folder / PAGE).write_text(as_html(outcome), encoding="utf-8")
    (folder / "record.json").write_text(json.dumps(as_json(outcome), indent=2) + "\n")
    (folder / "audit.txt").write_text(outcome.audit.text)
    outcome.evidence.record.write(folder / "answers.csv")
    write_people(outcome.evidence.people, folder / "people.csv")


# -- for the terminal ---------------------------------------------------------------------------------------------


def as_text(outcome: Outcome) -> str:
    """Timeline, answers a second, latencies, bounds, verdict."""
    seen = outcome.evidence
    lines = ["", *(f"  {at_s:7.1f} s  {words}" for at_s, words in timeline(seen))]
    lines += ["", *_sparklines(seen)]
    lines += ["", *_latency_lines(seen)]
    lines += ["", *(f"  {'ok    ' if one.passed else 'FAILED'}  {one.words}" for one in outcome.judged)]
    lines += [f"            {example}" for example in _examples(seen)]
    lines.append(f"  {'FAILED' if outcome.audit.exit_code else 'ok    '}  the audit: every invariant holds")
    if outcome.audit.exit_code:
        lines += [f"            {line}" for line in outcome.audit.text.splitlines()]
    lines.append(f"  people: {_outcomes(seen)}")
    failures = outcome.failures()
    lines.append(f"{outcome.drill.name} {'FAILED' if failures else 'passed'}")
    lines += [f"  {words}" for words in failures]
    return "\n".join(lines)


def timeline(seen: Evidence) -> list[tuple[float, str]]:
    """What happened when: the marks, and when each step was refused first and last and answered again."""
    shout = {"break": "BREAK   ", "heal": "HEALED  "}
    moments = [(mark.at_s, shout.get(mark.kind, "") + mark.words) for mark in seen.marks]
    for step, title in STEPS.items():
        if outage := seen.outage((step,)):
            broke_s = seen.broke_s
            moments.append(
                (broke_s + outage.first_s, f"{title}: first refusal ({outage.problem}), {_after(outage.first_s)}")
            )
            words = f"{title}: last refusal of {outage.count:,}, {_after(outage.last_s)}"
            moments.append((broke_s + outage.last_s, words))
            if outage.back_s is None:
                moments.append((seen.ended_s, f"{title}: never answered again"))
            else:
                moments.append((broke_s + outage.back_s, f"{title}: answers again, {_after(outage.back_s)}"))
    return sorted(moments, key=lambda moment: moment[0])


def _after(seconds: float) -> str:
    return f"{seconds:.2f} s after the break"


def _sparklines(seen: Evidence) -> list[str]:
    """Two rows a step: answered, and refused or broken where there was any; one character is ``width_s`` seconds."""
    width_s = max(1, math.ceil(seen.ended_s / _COLUMNS_MAX))
    columns = math.ceil(seen.ended_s / width_s)
    lines = [f"  answers a second, one character for {width_s} s{'':<8}{_BARS[0]} few … {_BARS[-1]} the step's most"]
    ruler = [" "] * columns
    for one in seen.marks:
        if one.kind in ("break", "heal"):
            ruler[min(columns - 1, int(one.at_s / width_s))] = "×" if one.kind == "break" else "+"
    lines.append(f"  {'':<28}{''.join(ruler)}   × break, + healed")
    for step, title in STEPS.items():
        good = _per_column(seen, step, (Went.OK, Went.DECLINED), width_s, columns)
        bad = _per_column(seen, step, FAILURES, width_s, columns)
        most = max([*good, *bad])
        if not most:
            continue
        lines.append(f"  {title:<17}{'answered':<11}{_bars(good, most)}   most {most / width_s:,.0f}/s")
        if any(bad):
            lines.append(f"  {'':<17}{'refused':<11}{_bars(bad, most)}   {sum(bad):,} in all")
    return lines


def _per_column(seen: Evidence, step: str, outcomes: Sequence[Went], width_s: int, columns: int) -> list[int]:
    counts = Counter(
        int(answer.at_s / width_s) for answer in seen.record.select(steps=(step,), outcomes=outcomes, to_s=seen.ended_s)
    )
    return [counts[column] for column in range(columns)]


def _bars(counts: Sequence[int], most: int) -> str:
    return "".join(_BARS[math.ceil(count / most * len(_BARS)) - 1] if count else "·" for count in counts)


def _latency_lines(seen: Evidence) -> list[str]:
    lines = [f"  {'ms':<17}" + "".join(f"{_phase_title(seen, phase):<35}" for phase in PHASES)]
    lines.append(f"  {'':<17}" + f"{'answers':>8}{'p50':>6}{'p95':>6}{'most':>7}{'refused':>8}" * len(PHASES))
    for step, title in STEPS.items():
        cells = [seen.latency((step,), phase) for phase in PHASES]
        if any(cell.answers or cell.refused or cell.broken for cell in cells):
            lines.append(f"  {title:<17}" + "".join(map(_latency_cells, cells)))
    return lines


def _phase_title(seen: Evidence, phase: Any) -> str:
    from_s, to_s = seen.phase(phase)
    return f"{phase} ({max(0.0, to_s - from_s):.1f} s)" if math.isfinite(from_s) and math.isfinite(to_s) else phase


def _latency_cells(cell: Latency) -> str:
    times = f"{cell.p50_ms:>6,.0f}{cell.p95_ms:>6,.0f}{cell.max_ms:>7,.0f}"
    return f"{cell.answers:>8,}{times}{cell.refused + cell.broken:>8,}"


def _examples(seen: Evidence) -> list[str]:
    """Of what must not be: the first few, to begin looking with."""
    found = places_lost(seen.people)[:_EXAMPLES_MAX]
    found += worse_positions(seen.people, seen.told)[:_EXAMPLES_MAX]
    found += overtaken(seen.people, seen.start_us, seen.broke_us)[:_EXAMPLES_MAX]
    broken = list(seen.broken())[:_EXAMPLES_MAX]
    return found + [
        f"{answer.at_s:.1f} s {answer.step}: {answer.status or 'no answer'} {answer.problem}" for answer in broken
    ]


def _outcomes(seen: Evidence) -> str:
    counts = Counter(person.outcome for person in seen.people)
    return ", ".join(f"{count:,} {outcome}" for outcome, count in counts.most_common())


# -- for later ----------------------------------------------------------------------------------------------------


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The record for machines. Times are in seconds since the drill began unless they say otherwise."""
    seen, drill = outcome.evidence, outcome.drill
    return {
        "encore_drill": 1,
        "drill": drill.name,
        "breaks": drill.breaks,
        "passed": not outcome.failures(),
        "failures": outcome.failures(),
        "started_at": outcome.started.isoformat(),
        "command": outcome.command,
        "target": outcome.target,
        "topology": asdict(drill.topology),
        "gate": asdict(drill.gate),
        "plan": asdict(drill.plan),
        "bounds": [
            {
                "label": one.bound.label,
                "comparison": one.bound.comparison,
                "bound": one.bound.bound,
                "unit": one.bound.unit,
                "measured": one.value,
                "passed": one.passed,
            }
            for one in outcome.judged
        ],
        "figures": seen.figures,
        "timeline": [{"at_s": round(at_s, 3), "words": words} for at_s, words in timeline(seen)],
        "outages": {step: asdict(outage) for step in STEPS if (outage := seen.outage((step,)))},
        "latency": {
            step: {phase: asdict(seen.latency((step,), phase)) for phase in PHASES}
            for step in STEPS
            if any(True for _ in seen.record.select(steps=(step,)))
        },
        "people": dict(Counter(person.outcome for person in seen.people)),
        "most_inside": most_inside(seen.people, seen.start_us),
        "audit": {"exit_code": outcome.audit.exit_code, "text": outcome.audit.text},
    }


def as_html(outcome: Outcome) -> str:
    """The page."""
    seen, drill = outcome.evidence, outcome.drill
    failures = outcome.failures()
    reasons = "".join(f"<p>{escape(words)}</p>" for words in failures)
    started, command = f"{outcome.started:%Y-%m-%d %H:%M:%S} UTC", escape(outcome.command)
    origin = f"{started} · {escape(drill.breaks)} · <code>{command}</code>"
    moments = [(f"{at_s:.1f} s", escape(words)) for at_s, words in timeline(seen)]
    bounds = [(escape(one.words), mark(one.passed, "ok", "failed")) for one in outcome.judged]
    bounds.append(("the audit of the invariants", mark(not outcome.audit.exit_code, "passed", "failed")))
    parts = (
        f'{reasons}<p class="quiet">{origin}</p>',
        "<h2>What must hold</h2>\n" + table(("", ""), bounds),
        "<h2>Timeline</h2>\n" + table(("", "seconds since the drill began"), moments),
        '<h2>Charts</h2>\n<div class="charts">' + "\n".join(_charts(seen)) + "</div>",
        "<h2>Steps</h2>\n" + _latency_table(seen),
        f"<p>People: {escape(_outcomes(seen))}.</p>",
        f"<h2>What the audit said</h2>\n<pre>{escape(outcome.audit.text)}</pre>",
    )
    return page(f"drill {drill.name}", f"{escape(drill.name)}: {mark(not failures, 'passed', 'failed')}", parts)


def _charts(seen: Evidence) -> list[str]:
    if not math.isfinite(seen.ended_s) or seen.ended_s < 1:
        return []
    seconds = range(math.ceil(seen.ended_s))
    at = [float(second) for second in seconds]
    marks = [(one.at_s, _mark_name(one)) for one in seen.marks if one.kind in ("break", "heal")]
    drawn = []
    for title, steps in (("The line: steps 1 and 2", tuple(STEPS)[:2]), ("The shop: steps 3 to 7", tuple(STEPS)[2:])):
        series = [
            Series(name, _sum_columns([_per_column(seen, step, outcomes, 1, len(at)) for step in steps]), colour)
            for name, outcomes, colour in (
                ("answered", (Went.OK, Went.DECLINED), "c1"),
                ("refused or broken", FAILURES, "bad"),
            )
        ]
        drawn.append(line_chart(f"{title}, answers a second", "seconds since the drill began", at, series, marks))
    admitted = Counter(int(at_s) for at_s in seen.admissions_s())
    let_in = [Series("people", [float(admitted[second]) for second in seconds], "c2")]
    drawn.append(line_chart("People let in each second", "seconds since the drill began", at, let_in, marks))
    return drawn


def _mark_name(one: Mark) -> str:
    return "broken" if one.kind == "break" else "healed"


def _sum_columns(rows: Sequence[Sequence[int]]) -> list[float]:
    return [float(sum(column)) for column in zip(*rows, strict=True)]


def _latency_table(seen: Evidence) -> str:
    rows = []
    for step, title in STEPS.items():
        for phase in PHASES:
            cell = seen.latency((step,), phase)
            if cell.answers or cell.refused or cell.broken:
                figures = (cell.answers, cell.p50_ms, cell.p95_ms, cell.max_ms, cell.refused, cell.broken)
                rows.append((f"{escape(title)}, {phase}", *(f"{figure:,.0f}" for figure in figures)))
    return table(("", "answers", "p50 ms", "p95 ms", "most ms", "refused", "broken"), rows)
