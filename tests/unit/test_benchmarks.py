"""What scripts/bench makes of its measurements; the measurements themselves need no test that times them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.measure import Case, Result, measure
from benchmarks.report import BadReport, as_json, as_table, read_earlier
from benchmarks.requests import Request
from benchmarks.tools import ToolError
from encore_stack.commands import bench


def rates(*values: float) -> Callable[[], float]:
    left = list(values)
    return lambda: left.pop(0)


def result(*ratios: float, name: str = "step1", times_max: float | None = 2.0) -> Result:
    return Result("http", name, "floor", times_max, [100.0] * len(ratios), [100.0 * ratio for ratio in ratios])


def test_each_round_measures_both_sides_and_keeps_their_ratio() -> None:
    case = Case("http", "step1", "floor", rates(50, 100, 200), rates(100, 100, 100))

    measured = measure(case, 3, lambda _: None)

    assert measured.ratios == [2.0, 1.0, 0.5]
    assert measured.times == (1.0, 0.5, 2.0)


def test_the_sides_take_turns_at_going_first() -> None:
    order: list[str] = []

    def side(name: str) -> Callable[[], float]:
        return lambda: order.append(name) or 1.0

    measure(Case("http", "step1", "floor", side("case"), side("floor")), 2, lambda _: None)

    assert order == ["floor", "case", "case", "floor"]


def test_a_case_that_cannot_be_measured_says_why_and_ends_no_other() -> None:
    def refused() -> float:
        raise ToolError("7 of 7 requests were refused")

    broken = measure(Case("http", "step1", "floor", refused, rates(1)), 1, lambda _: None)

    assert "step1" in as_table([broken, result(1.0, name="step2")])
    assert "could not be measured: 7 of 7 requests were refused" in as_table([broken])


@pytest.mark.parametrize(("ratio", "verdict"), [(1.9, "2 ok"), (2.1, "2 OVER")])
def test_what_a_case_may_cost_is_judged_by_the_median(ratio: float, verdict: str) -> None:
    assert verdict in as_table([result(0.1, ratio, 9.0)])


@pytest.mark.parametrize(
    ("now", "verdict"), [((1.0, 1.1), "better"), ((3.0, 3.1), "worse"), ((1.9, 2.2), ""), ((1.0, 9.0), "")]
)
def test_an_earlier_run_differs_only_where_the_spreads_do_not_meet(
    now: tuple[float, float], verdict: str, tmp_path: Path
) -> None:
    file = tmp_path / "before.json"
    file.write_text(as_json([result(1.8, 2.0, 2.1)], {"rounds": 3}))

    line = as_table([result(*now)], read_earlier(file)).splitlines()[2]

    assert "2.00" in line
    assert [word for word in ("better", "worse") if word in line] == ([verdict] if verdict else [])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"encore_benchmark": 2, "results": []}'])
def test_a_file_that_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "before.json"
    file.write_text(text)

    with pytest.raises(BadReport, match=r"before\.json"):
        read_earlier(file)


def test_the_json_has_every_round() -> None:
    [told] = json.loads(as_json([result(1.0, 2.0)], {"rounds": 2}))["results"]

    assert told["rates"] == [100.0, 100.0]
    assert told["floor_rates"] == [100.0, 200.0]


def test_a_request_is_the_same_over_the_wire_and_in_process() -> None:
    request = Request("POST", "/reservations?x=1", {"Content-Type": "application/json", "Idempotency-Key": "k"}, b"{}")

    head, body = request.raw("/v1").split(b"\r\n\r\n")
    environ = request.environ()

    assert head.startswith(b"POST /v1/reservations?x=1 HTTP/1.1\r\n")
    assert b"\r\nContent-Length: 2\r\n" in head
    assert body == environ["wsgi.input"].read() == b"{}"
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/reservations", "x=1")
    assert (environ["HTTP_IDEMPOTENCY_KEY"], environ["CONTENT_TYPE"]) == ("k", "application/json")


@pytest.mark.parametrize(
    "arguments", [["--rounds", "0"], ["--seconds", "61"], ["--only", "nosuch"], ["--against", "/no/such/file"]]
)
def test_values_that_make_no_sense_are_refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCORE_INSTANCE", "bench")
    try:
        code = bench.run(arguments)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1

    assert code == 2


class Bench:
    """scripts/bench with nothing behind it: what it does to its instance, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: list[str] = []
        self.fault: Exception | None = None
        self.audit_code = 0
        monkeypatch.setenv("ENCORE_INSTANCE", "bench")
        monkeypatch.setattr(bench, "measure_all", lambda plan, tell: self._measure([result(1.0)]))
        monkeypatch.setattr(bench, "measure_line", lambda duration_s, tell: self._measure("what the line bears"))
        monkeypatch.setattr(bench, "audit", lambda: self.did.append("audit") or self.audit_code)
        monkeypatch.setattr(bench.down, "run", lambda arguments: self.did.append(f"down {' '.join(arguments)}") or 0)

    def _measure[Measured](self, measured: Measured) -> Measured:
        self.did.append("measure")
        if self.fault:
            raise self.fault
        return measured


MEASURES = pytest.mark.parametrize(
    ("arguments", "told"), [([], "step1"), (["--line"], "what the line bears")], ids=["steps", "line"]
)


@MEASURES
def test_what_is_measured_is_audited_and_the_instance_taken_down(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    does = Bench(monkeypatch)

    assert bench.run(arguments) == 0

    assert does.did == ["measure", "audit", "down --wipe"]
    assert told in capsys.readouterr().out


@MEASURES
def test_an_audit_that_fails_fails_the_run_and_the_instance_may_stay(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    does = Bench(monkeypatch)
    does.audit_code = 1

    assert bench.run([*arguments, "--keep"]) == 1

    assert does.did == ["measure", "audit"]
    assert told in capsys.readouterr().out


@MEASURES
def test_what_cannot_be_measured_says_why_and_the_instance_is_taken_down(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    does = Bench(monkeypatch)
    does.fault = ToolError("wrk failed")

    assert bench.run(arguments) == 1

    assert does.did == ["measure", "down --wipe"]
    captured = capsys.readouterr()
    assert "error: wrk failed" in captured.err
    assert told not in captured.out
