"""The load report, from the JSON of a recorded run: 60 buyers at the gateway, Redis away for four of their seconds."""

import json
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from artillery.charts import Series, bar_chart, line_chart
from artillery.plan import STEPS, plan_buyers
from artillery.report import Audit, Run, as_html, as_text
from artillery.results import EVENTS, OUTCOMES, Results, UnreadableResults, read_results, results
from artillery.results import STEPS as STEP_TITLES
from artillery.thresholds import judge, thresholds
from encore_stack.instance import PROJECT_DIR

RECORDED = Path(__file__).parent / "load" / "artillery.json"
BUYER = PROJECT_DIR / "load" / "artillery" / "buyer.mjs"


@pytest.fixture
def recorded() -> dict[str, Any]:
    report: dict[str, Any] = json.loads(RECORDED.read_text())
    return report


@pytest.fixture
def outcome(recorded: dict[str, Any]) -> Run:
    buyers = plan_buyers(replace(STEPS, users=60), {1: 1_000})
    return Run(
        name="steps",
        target="gateway",
        url="http://127.0.0.1:1",
        started_at="2026-11-23 03:00:29 UTC",
        command="scripts/load steps --users 60",
        results=results(recorded),
        judged=judge(thresholds(STEPS, "gateway", buyers), recorded["aggregate"]),
        audit=Audit(0, "audit passed"),
        artillery_exit=1,
    )


def passing(run: Run) -> Run:
    """The same run, as if it had missed nothing."""
    return replace(run, artillery_exit=0, judged=[one for one in run.judged if one.passed])


def test_what_is_read_adds_up(recorded: dict[str, Any]) -> None:
    found = results(recorded)

    assert found.buyers == 60
    assert sum(step.requests for step in found.steps) == found.requests == sum(found.codes.values())
    assert found.outcomes["have a ticket"] == 55
    assert sum(found.outcomes.values()) == found.buyers
    assert found.events["retries after a 503 or a timeout"] == sum(step.faults for step in found.steps) == 18
    assert found.codes["503"] == 18


def test_the_windows_cover_the_run_and_end_with_nobody_inside(recorded: dict[str, Any]) -> None:
    found = results(recorded)

    at = [window.at_s for window in found.windows]
    assert at == sorted(at)
    assert 0 <= at[0] < at[-1] <= found.duration_s
    assert found.windows[-1].buyers_inside == 0
    assert max(window.buyers_inside for window in found.windows) > 0
    assert sum(window.times.count for window in found.windows) == found.times.count


def test_a_short_window_is_no_slow_one(recorded: dict[str, Any]) -> None:
    """Rates are per second that the run was in the window: artillery's windows begin on the clock."""
    aggregate = recorded["aggregate"] | {"firstMetricAt": 1_008_000, "lastMetricAt": 1_012_000}
    both = {"counters": {"http.requests": 20}, "summaries": {}}
    windows = results(
        {"aggregate": aggregate, "intermediate": [both | {"period": "1000000"}, both | {"period": "1010000"}]}
    ).windows

    assert [window.requests_per_s for window in windows] == [10, 10]
    assert [window.at_s for window in windows] == [1, 3]


def test_metrics_are_named_alike_where_they_are_emitted() -> None:
    source = BUYER.read_text()

    assert all(f"'{step}'" in source for step in STEP_TITLES)
    assert set(re.findall(r"'(step\d_\w+)'", source)) <= set(STEP_TITLES)
    for name in (*OUTCOMES, *EVENTS):
        assert f"'{name.rpartition('.')[2]}'" in source or f"'{name}'" in source


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"aggregate": {}}', '{"aggregate": {"counters": 1}}'])
def test_a_file_that_is_no_result_is_said_to_be_none(content: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(content)

    with pytest.raises(UnreadableResults, match=r"report\.json"):
        read_results(file)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UnreadableResults, match="FileNotFoundError"):
        read_results(tmp_path / "report.json")


def test_a_run_that_missed_nothing_has_passed(outcome: Run) -> None:
    assert passing(outcome).failures() == []
    assert '<span class="good">passed</span></h1>' in as_html(passing(outcome))


def test_a_missed_threshold_fails_the_run_and_is_named(outcome: Run) -> None:
    assert outcome.failures() == ["requests sent again after a 503 or a timeout: 18, must be ≤ 0"]
    assert '<span class="bad">failed</span></h1>' in as_html(outcome)
    assert "MISSED  requests sent again after a 503 or a timeout: 18 (bound ≤ 0)" in as_text(outcome)


@pytest.mark.parametrize("exit_code", [1, 2, 3])
def test_the_audit_alone_can_fail_a_run(outcome: Run, exit_code: int) -> None:
    broken = replace(passing(outcome), audit=Audit(exit_code, "  I1  BROKEN\naudit FAILED"))

    assert broken.failures() == [f"the audit ended with exit code {exit_code}; see audit.txt"]
    assert "AUDIT FAILED" in as_text(broken)
    assert "I1  BROKEN" in as_text(broken)
    assert "I1  BROKEN" in as_html(broken)
    assert '<span class="bad">failed</span></h1>' in as_html(broken)


def test_artillery_alone_can_fail_a_run(outcome: Run) -> None:
    assert replace(passing(outcome), artillery_exit=11).failures() == [
        "artillery ended with exit code 11; see artillery.log"
    ]


class _Page(HTMLParser):
    """What a page would fetch or run, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [name for name, _ in attrs if name in ("src", "href", "srcset", "data")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself(outcome: Run) -> None:
    html = as_html(outcome)
    page = _Page()
    page.feed(html)

    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.references == []
    assert "@import" not in html
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html


def test_every_chart_is_there_and_well_formed(outcome: Run) -> None:
    html = as_html(outcome)

    for title in (
        "Requests a second",
        "Response time of all requests, ms",
        "Buyers under way at the end of each window",
        "Response time of each step, ms",
        "Answers by status code",
        "What became of the buyers, and what they met",
    ):
        assert f"<figcaption>{title}</figcaption>" in html
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 6
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def test_a_run_too_short_for_a_course_says_so(outcome: Run) -> None:
    short = replace(outcome, results=replace(outcome.results, windows=outcome.results.windows[:2]))

    html = as_html(short)

    assert "too short to draw a course over time" in html
    assert html.count("<svg") == 3


def test_what_others_have_written_is_text_on_the_page(outcome: Run) -> None:
    evil = "<script>alert(1)</script>"
    found: Results = replace(outcome.results, faults={evil: 1}, codes={evil: 1})

    html = as_html(replace(outcome, results=found, url=evil, audit=Audit(1, evil)))

    assert evil not in html
    assert html.count(escape(evil)) >= 4


def test_a_chart_of_nothing_is_still_a_chart() -> None:
    for drawing in (
        line_chart("Nothing", "seconds", [0.0], [Series("none", [0], "c1")]),
        bar_chart("Nothing", ["none"], [Series("none", [0], "c1")]),
        bar_chart("Nothing at all", [], [Series("none", [], "c1")]),
    ):
        ElementTree.fromstring(drawing[drawing.index("<svg") : drawing.index("</figure>")])


@pytest.mark.parametrize("highest", [0.02, 1, 7, 23, 57, 99, 100, 101, 2_322, 99_999])
def test_no_value_lies_above_the_axis(highest: float) -> None:
    drawing = line_chart("Values", "seconds", [0.0, 10.0], [Series("value", [0, highest], "c1")])

    points = re.search(r'polyline class="line c1" points="([^"]+)"', drawing)
    assert points
    heights = [float(point.partition(",")[2]) for point in points[1].split()]
    assert min(heights) >= 16
    assert max(heights) <= 200
