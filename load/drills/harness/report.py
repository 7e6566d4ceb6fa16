"""What came of a drill: a timeline and its bounds for the terminal; a page, a JSON file and all answers for later."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
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
from drills.harness.watch import FIRMS, HALF_OPEN, LAG, OPEN, OPERATIONS, OUTBOX, OUTBOX_AGE, PENDING, circuit

PAGE = "report.html"
_COLUMNS_MAX = 90
_BARS = "▁▂▃▄▅▆▇█"
_EXAMPLES_MAX = 5
_PAY = "step7_pay"
_CIRCUITS = tuple(circuit(firm, operation) for firm in FIRMS for operation in OPERATIONS)


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
    lines += ["", *_watched_lines(seen)]
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
    """What happened when: the marks; when each step was refused first and last and answered again; when payments were
    answered with pending, first and last, and from when on none was; how the circuits went."""
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
    moments += _pending_moments(seen) + _circuit_moments(seen)
    return sorted(moments, key=lambda moment: moment[0])


def _pending_moments(seen: Evidence) -> list[tuple[float, str]]:
    pending = sorted(answer.at_s for answer in seen.pending_answers())
    if not pending:
        return []
    title, first_s, last_s = STEPS[_PAY], pending[0], pending[-1]
    moments = [
        (first_s, f"{title}: first answer with pending (202), {_after(first_s - seen.broke_s)}"),
        (last_s, f"{title}: last of {len(pending):,} answers with pending, {_after(last_s - seen.broke_s)}"),
    ]
    if (settled_s := seen.from_when(PENDING, at_most=0, from_s=first_s)) is not None:
        moments.append((settled_s, f"no payment is pending any more, {_when(seen, settled_s)}"))
    return moments


def _circuit_moments(seen: Evidence) -> list[tuple[float, str]]:
    """When each circuit was seen to open first and to be closed for good."""
    moments = []
    for firm in FIRMS:
        for operation in OPERATIONS:
            name = circuit(firm, operation)
            looks = [sample.at_s for sample in seen.samples if sample.values.get(name) == OPEN]
            if not looks:
                continue
            moments.append((looks[0], f"the circuit of {firm}'s {operation} opens, {_after(looks[0] - seen.broke_s)}"))
            if (closed_s := seen.from_when(name, at_most=0, from_s=looks[0])) is not None:
                words = f"the circuit of {firm}'s {operation} is closed for good, {_when(seen, closed_s)}"
                moments.append((closed_s, words))
    return moments


def _when(seen: Evidence, at_s: float) -> str:
    """Of a firm's recovery: since what was broken is whole, if it came after that."""
    healed_s = seen.moment("heal")
    if healed_s is None or at_s < healed_s:
        return _after(at_s - seen.broke_s)
    return f"{at_s - healed_s:.2f} s after it is whole"


def _after(seconds: float) -> str:
    return f"{seconds:.2f} s after the break"


def _sparklines(seen: Evidence) -> list[str]:
    """Two rows a step: answered, and refused or broken where there was any; one character is ``width_s`` seconds."""
    width_s, columns = _columns(seen.ended_s)
    lines = [f"  answers a second, one character for {width_s} s{'':<8}{_BARS[0]} few … {_BARS[-1]} the step's most"]
    lines.append(_ruler(seen, width_s, columns))
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


def _columns(to_s: float) -> tuple[int, int]:
    """How many seconds a character stands for, and how many there are."""
    width_s = max(1, math.ceil(to_s / _COLUMNS_MAX))
    return width_s, math.ceil(to_s / width_s)


def _ruler(seen: Evidence, width_s: int, columns: int) -> str:
    signs = {"break": "×", "heal": "+", "end": "|"}
    ruler = [" "] * columns
    for one in seen.marks:
        if one.kind in signs and one.at_s < width_s * columns:
            ruler[int(one.at_s / width_s)] = signs[one.kind]
    end = ", | nobody comes any more" if "|" in ruler else ""
    return f"  {'':<28}{''.join(ruler)}   × break, + healed{end}"


def _watched_lines(seen: Evidence) -> list[str]:
    """A row for what was watched and was not nothing all the time, to the last look: work ends after the people."""
    names = _watched_names(seen)
    if not names:
        return []
    width_s, columns = _columns(seen.samples[-1].at_s + 1)
    lines = [
        f"  the most seen, one character for {width_s} s{'':<10}{_BARS[0]} little … {_BARS[-1]} its most, ? not seen"
    ]
    lines.append(_ruler(seen, width_s, columns))
    for name in names:
        most = [seen.most(name, at * width_s, (at + 1) * width_s) for at in range(columns)]
        highest = OPEN if name in _CIRCUITS else max(value for value in most if value is not None)
        row = "".join("?" if value is None else _bars([value], highest) for value in most)
        meaning = (
            f"{_bars([OPEN], OPEN)} open, {_bars([HALF_OPEN], OPEN)} one request tries"
            if name in _CIRCUITS
            else f"most {_amount(highest)}"
        )
        lines.append(f"  {name:<28}{row}   {meaning}")
    return lines


def _watched_names(seen: Evidence) -> list[str]:
    """What was seen to be more than nothing; of the consumers only their sum, which has the parts in the record."""
    names = [
        PENDING,
        OUTBOX,
        OUTBOX_AGE,
        LAG,
        *(circuit(firm, operation) for firm in FIRMS for operation in OPERATIONS),
    ]
    return [name for name in names if seen.most(name, 0.0)]


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _per_column(seen: Evidence, step: str, outcomes: Sequence[Went], width_s: int, columns: int) -> list[int]:
    counts = Counter(
        int(answer.at_s / width_s) for answer in seen.record.select(steps=(step,), outcomes=outcomes, to_s=seen.ended_s)
    )
    return [counts[column] for column in range(columns)]


def _bars(counts: Sequence[float], most: float) -> str:
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
        "watched": _watched_json(seen),
        "people": dict(Counter(person.outcome for person in seen.people)),
        "most_inside": most_inside(seen.people, seen.start_us),
        "audit": {"exit_code": outcome.audit.exit_code, "text": outcome.audit.text},
    }


def _watched_json(seen: Evidence) -> dict[str, list[float | None]]:
    """A column for each thing that was watched, beside the moments of the looks; null: it could not be asked then."""
    names = sorted({name for sample in seen.samples for name in sample.values})
    columns: dict[str, list[float | None]] = {"at_s": [round(sample.at_s, 2) for sample in seen.samples]}
    return columns | {name: [sample.values.get(name) for sample in seen.samples] for name in names}


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
        "<h2>Timeline</h2>\n" + table(("since the drill began", ""), moments),
        '<h2>Charts</h2>\n<div class="charts">' + "\n".join(_charts(seen) + _watched_charts(seen)) + "</div>",
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


def _watched_charts(seen: Evidence) -> list[str]:
    """Payments, events and circuits as they were seen, to the last look."""
    charts = (
        ("Payments pending", {PENDING: "c1"}),
        ("Events that are not in Kafka, or not consumed", {OUTBOX: "c1", LAG: "c2"}),
        ("How long the oldest event has waited for Kafka, s", {OUTBOX_AGE: "c1"}),
        *((f"Circuits of {firm}: {OPEN:g} open, {HALF_OPEN:g} one request tries",
           {circuit(firm, operation): colour for operation, colour in zip(OPERATIONS, ("c1", "c2"), strict=True)})
          for firm in FIRMS),
    )  # fmt: skip
    marks = [(one.at_s, _mark_name(one)) for one in seen.marks if one.kind in ("break", "heal", "end")]
    shown = set(_watched_names(seen))
    return [_watched_chart(seen, title, colours, marks) for title, colours in charts if shown & colours.keys()]


def _watched_chart(seen: Evidence, title: str, colours: Mapping[str, str], marks: Sequence[tuple[float, str]]) -> str:
    # What could not be asked is drawn as it was seen last: a gap would look like an end.
    last: dict[str, float] = dict.fromkeys(colours, 0.0)
    series: dict[str, list[float]] = {name: [] for name in colours}
    for sample in seen.samples:
        for name in colours:
            last[name] = sample.values.get(name, last[name])
            series[name].append(last[name])
    at = [sample.at_s for sample in seen.samples]
    lines = [Series(name, series[name], colour) for name, colour in colours.items()]
    return line_chart(title, "seconds since the drill began", at, lines, marks)


def _mark_name(one: Mark) -> str:
    return {"break": "broken", "heal": "healed"}.get(one.kind, "end")


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
