"""A run as people read it: one HTML page that needs nothing else, and a summary for the terminal.

Artillery's own `report` command is out of service: it points to a hosted one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from artillery.charts import Series, bar_chart, line_chart
from artillery.page import mark, page, table
from artillery.results import STEPS, WINDOW_S, Results, Times
from artillery.thresholds import Judged

_WINDOWS_MIN = 3
"""With fewer windows there is no course over time to draw."""

_REPORTED = (
    "For comparison, the load test of the report that Encore answers (150 users, 1,500,000 seats, 2 cores, 4 GB):"
    " 172 scenarios, 2,071 requests, none failed, mean 388 ms, p95 1,930 ms, p99 2,770 ms."
)


@dataclass(frozen=True, slots=True)
class Audit:
    """What `scripts/audit` said and its exit code (0: every invariant holds)."""

    exit_code: int
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that the report tells. ``artillery_exit`` is artillery's exit code."""

    name: str
    target: str
    url: str
    started_at: str
    command: str
    results: Results
    judged: Sequence[Judged]
    audit: Audit
    artillery_exit: int

    def failures(self) -> list[str]:
        """Why the run has failed, in words; nothing when it has passed."""
        words = [_missed(one) for one in self.judged if not one.passed]
        if self.artillery_exit and not words:
            words.append(f"artillery ended with exit code {self.artillery_exit}; see artillery.log")
        if self.audit.exit_code:
            words.append(f"the audit ended with exit code {self.audit.exit_code}; see audit.txt")
        return words


def as_text(run: Run) -> str:
    """The summary for the terminal."""
    results = run.results
    lines = [f"  {'':<18}{'requests':>9}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'faults':>8}"]
    for step in results.steps:
        times = "".join(f"{_ms(value):>9}" for value in (step.times.p50, step.times.p95, step.times.p99))
        lines.append(f"  {step.title:<18}{step.requests:>9,}{times}{step.faults:>8,}")
    times = "".join(f"{_ms(value):>9}" for value in (results.times.p50, results.times.p95, results.times.p99))
    faults = sum(step.faults for step in results.steps)
    lines.append(f"  {'all':<18}{results.requests:>9,}{times}{faults:>8,}")
    outcomes = ", ".join(f"{count:,} {name}" for name, count in results.outcomes.items() if count) or "nobody came"
    lines.append(f"  of {results.buyers:,} buyers: {outcomes}")
    lines += [f"  {count:,} {name}" for name, count in results.events.items() if count]
    lines += [f"  fault {name}: {count:,}" for name, count in results.faults.items()]
    for one in run.judged:
        word = "ok    " if one.passed else "MISSED"
        lines.append(f"  {word}  {one.threshold.label}: {_value(one)} (bound {_bound(one)})")
    lines.append("  audit passed" if run.audit.exit_code == 0 else "  AUDIT FAILED:")
    if run.audit.exit_code:
        lines += [f"    {line}" for line in run.audit.text.splitlines()]
    return "\n".join(lines)


def as_html(run: Run) -> str:
    """The page, with its charts."""
    title = f"{run.name} at {run.target}"
    failures = run.failures()
    verdict = mark(not failures, "passed", "failed")
    reasons = "".join(f"<p>{escape(words)}</p>" for words in failures)
    size = f"{run.results.duration_s:.0f} s, {run.results.buyers:,} buyers, {run.results.requests:,} requests"
    origin = f"{escape(run.started_at)} · {size} · {escape(run.url)} · <code>{escape(run.command)}</code>"
    parts = (
        f'{reasons}<p class="quiet">{origin}</p>',
        "<h2>Thresholds and audit</h2>\n" + _threshold_table(run),
        "<h2>Steps</h2>\n" + _step_table(run),
        '<h2>Charts</h2>\n<div class="charts">' + "\n".join(_charts(run.results)) + "</div>",
        _faults(run.results),
        f"<h2>What the audit said</h2>\n<pre>{escape(run.audit.text)}</pre>",
    )
    return page(title, f"{escape(title)}: {verdict}", parts)


def _threshold_table(run: Run) -> str:
    rows = [
        (escape(one.threshold.label), _value(one), _bound(one), mark(one.passed, "ok", "missed")) for one in run.judged
    ]
    rows.append(("audit of the invariants", "", "", mark(run.audit.exit_code == 0, "passed", "failed")))
    return table(("", "measured", "bound", ""), rows)


def _step_table(run: Run) -> str:
    results = run.results
    rows = [
        (escape(step.title), "", f"{step.requests:,}", *_cells(step.times), f"{step.faults:,}")
        for step in results.steps
    ]
    faults = sum(step.faults for step in results.steps)
    rows.append(("all", f"{results.buyers:,}", f"{results.requests:,}", *_cells(results.times), f"{faults:,}"))
    steps = table(("", "buyers", "requests", "mean ms", "p50 ms", "p95 ms", "p99 ms", "faults"), rows)
    return steps + (f'<p class="quiet">{_REPORTED}</p>' if run.name == "steps" else "")


def _charts(results: Results) -> list[str]:
    titles = list(STEPS.values())
    percentiles = [
        Series(name, [getattr(step.times, name) for step in results.steps], colour)
        for name, colour in (("p50", "c1"), ("p95", "c2"), ("p99", "c3"))
    ]
    everyone = results.outcomes | {name: count for name, count in results.events.items() if count}
    return [
        bar_chart("Response time of each step, ms", titles, percentiles),
        *_over_time(results),
        bar_chart(
            "Answers by status code", list(results.codes), [Series("answers", list(results.codes.values()), "c1")]
        ),
        bar_chart(
            "What became of the buyers, and what they met", [*everyone], [Series("count", [*everyone.values()], "c1")]
        ),
    ]


def _over_time(results: Results) -> list[str]:
    windows = results.windows
    if len(windows) < _WINDOWS_MIN:
        few = f"The run was shorter than {_WINDOWS_MIN} windows of {WINDOW_S} s: too short to draw a course over time."
        return [f'<figure><figcaption>Over time</figcaption><p class="quiet">{few}</p></figure>']
    at = [window.at_s for window in windows]
    x_title = f"seconds since the first request, windows of {WINDOW_S} s"
    percentiles = [
        Series(name, [getattr(window.times, name) for window in windows], colour)
        for name, colour in (("p50", "c1"), ("p95", "c2"), ("p99", "c3"))
    ]
    rates = [
        Series("requests", [window.requests_per_s for window in windows], "c1"),
        Series("faults", [window.faults_per_s for window in windows], "bad"),
    ]
    inside = [Series("buyers", [window.buyers_inside for window in windows], "c1")]
    return [
        line_chart("Requests a second", x_title, at, rates),
        line_chart("Response time of all requests, ms", x_title, at, percentiles),
        line_chart("Buyers under way at the end of each window", x_title, at, inside),
    ]


def _faults(results: Results) -> str:
    if not results.faults:
        return ""
    rows = [(escape(name), f"{count:,}") for name, count in results.faults.items()]
    return "<h2>What ended buyers</h2>\n" + table(("", "buyers"), rows)


def _cells(times: Times) -> tuple[str, ...]:
    return tuple(_ms(value) for value in (times.mean, times.p50, times.p95, times.p99))


def _missed(one: Judged) -> str:
    return f"{one.threshold.label}: {_value(one)}, must be {_bound(one)}"


def _value(one: Judged) -> str:
    return "not measured" if one.value is None else _ms(one.value)


def _bound(one: Judged) -> str:
    return f"{'≤' if one.threshold.comparison == '<=' else '≥'} {one.threshold.bound:,.0f}"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
