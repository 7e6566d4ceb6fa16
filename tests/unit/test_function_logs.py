"""The functions' logs as people read them: parsed, merged by time, filtered, followed."""

import io
import json
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from encore_stack.commands import logs
from encore_stack.function_logs import (
    Event,
    Follower,
    Painter,
    Source,
    Wanted,
    all_sources,
    as_json,
    as_text,
    events_of,
    newest,
    wants_colour,
)
from encore_stack.functions import UnknownFunction, find_name
from encore_stack.instance import Instance

_NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
_PLAIN = Painter(colour=False)
_MIB = 1 << 20


def line(at_s: float, message: str, correlation: str | None = None, **fields: object) -> str:
    """A line as Powertools writes it, so many seconds after noon."""
    stamp = datetime.fromtimestamp(_NOON + at_s, UTC)
    content = {
        "level": "INFO",
        "location": "_record:205",
        "message": message,
        "timestamp": f"{stamp:%Y-%m-%d %H:%M:%S},{stamp.microsecond // 1000:03d}+0000",
        "service": "step",
        **fields,
    }
    return json.dumps(content | ({"correlation_id": correlation} if correlation else {}))


def metric(at_s: float) -> str:
    about = {"Timestamp": int((_NOON + at_s) * 1000), "CloudWatchMetrics": [{"Metrics": [{"Name": "Requests"}]}]}
    return json.dumps({"_aws": about, "status": "2xx", "Requests": [1.0]})


def invocation(*lines: str) -> list[str]:
    """The lines of one invocation as the executor writes them."""
    return [
        "START RequestId: 0b1 Version: $LATEST",
        *lines,
        "END RequestId: 0b1",
        "REPORT RequestId: 0b1\tDuration: 1.00 ms\tBilled Duration: 2 ms\tMemory Size: 512 MB\tMax Memory Used: 34 MB",
    ]


def write(folder: Path, name: str, *invocations: Sequence[str]) -> Source:
    """Append to a function's log."""
    path = folder / f"encore-{name}.log"
    with path.open("a") as file:
        file.writelines(f"{each}\n" for lines in invocations for each in lines)
    return Source(name, path)


def messages(events: Sequence[Event]) -> list[str]:
    return [event.message for event in events]


# ---- what a line says ----


def test_an_answered_request_is_one_line_with_what_matters() -> None:
    lines = invocation(
        line(1.5, "answered", "7e2b1b70977b4510", method="POST", route="/reservations", status=201, duration_ms=8.96,
             step="step6_reserve", xray_trace_id="1-6b", seats=[1, 2], reason="not today"),
        metric(1.6),
    )  # fmt: skip

    [shown] = filter(Wanted().has, events_of("step6_reserve", lines, _NOON))

    text = as_text(shown, _PLAIN, len("step6_reserve"))
    clock = f"{datetime.fromtimestamp(_NOON + 1.5):%H:%M:%S}.500"
    assert text.removeprefix("11-23 ") == (
        f"{clock}  step6_reserve  INFO     7e2b1b70  answered  POST /reservations  201  8.96 ms"
        '  seats=[1,2] reason="not today"'
    )


def test_metrics_and_lambdas_own_lines_are_shown_when_asked_for() -> None:
    events = events_of("step1_join_queue", invocation(line(1, "answered"), metric(2)), _NOON)

    assert messages(list(filter(Wanted().has, events))) == ["answered"]
    shown = list(filter(Wanted(machinery=True).has, events))
    assert [event.level for event in shown] == ["LAMBDA", "INFO", "METRIC", "LAMBDA", "LAMBDA"]
    assert shown[2].message == "Requests 1"


def test_an_exception_stands_indented_below_its_line() -> None:
    trace = "Traceback (most recent call last):\n  File x\nZeroDivisionError: division by zero"
    [event] = events_of("f", [line(0, "unexpected fault", level="ERROR", exception=trace)], _NOON)

    first, *below = as_text(event, _PLAIN, 1).splitlines()

    assert "unexpected fault" in first and "location=_record:205" in first
    assert below == [" " * 8 + each for each in trace.splitlines()]


def test_an_answer_of_503_does_not_say_where_answers_are_logged() -> None:
    answered = line(0, "answered", method="GET", route="/queue/tokens/current", status=503, duration_ms=0.6)
    [event] = events_of("f", [answered], _NOON)

    assert as_text(event, _PLAIN, 1).endswith("answered  GET /queue/tokens/current  503  0.6 ms")


def test_what_was_printed_has_the_time_and_the_request_of_its_neighbours() -> None:
    lines = invocation("here", "  and here", line(3, "answered", "abc"))

    printed = events_of("f", lines, _NOON + 99)[1]

    assert (printed.level, printed.message, printed.details) == ("PRINT", "here", ("  and here",))
    assert (printed.time, printed.correlations) == (_NOON + 3, {"abc"})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["[ERROR] RuntimeError: not you", "Traceback (most recent call last):", "  File x"], "RuntimeError: not you"),
        (
            ["2026-11-23T12:00:09.250Z 5ac70c3e-6f0e-4e0f-9d15-0f7c0a0b0c0d Task timed out after 10.00 seconds"],
            "Task timed out after 10.00 seconds",
        ),
        (["RequestId: 1 Error: Runtime exited with error: signal: killed"], None),
    ],
)  # fmt: skip
def test_an_invocation_that_ended_badly_is_an_error(lines: list[str], message: str | None) -> None:
    event = events_of("f", invocation(*lines), _NOON)[1]

    assert event.level == "ERROR"
    assert event.message == (message or lines[0])
    assert list(event.details) == lines[1:]


def test_a_timeout_has_its_own_time() -> None:
    event = events_of("f", invocation("2026-11-23T12:00:09.250Z 1 Task timed out after 1.00 seconds"), 0)[1]

    assert event.time == _NOON + 9.25


@pytest.mark.parametrize(
    "odd", ['{"half": ', "{}", '{"_aws": {}}', '{"message": 1, "level": 7}', "\x00\ufffd", "{" * 9999]
)
def test_odd_lines_are_no_fault(odd: str) -> None:
    for event in events_of("f", [odd], _NOON):
        assert event.time == _NOON
        as_text(event, _PLAIN, 1)
        assert isinstance(json.loads(as_json(event)), dict)


def test_json_lines_are_what_was_logged() -> None:
    logged = line(0, "answered", "abc")
    printed, structured = events_of("f", ["a print", logged], _NOON)

    assert as_json(structured) == logged
    assert json.loads(as_json(printed)) | {"timestamp": 0} == {
        "level": "PRINT", "message": "a print", "timestamp": 0, "service": "f",
    }  # fmt: skip


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    [failed] = events_of("f", [line(0, "answered", status=503)], _NOON)
    assert "\033[31m503\033[0m" in as_text(failed, Painter(colour=True), 1)
    assert wants_colour(Terminal()) and not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())


# ---- which events ----


def test_the_logs_of_all_functions_come_in_the_order_of_time(tmp_path: Path) -> None:
    sources = [
        write(tmp_path, "a", invocation(line(1, "a1")), invocation(line(4, "a4"))),
        # A loop that ran for a minute: its lines are written after those of others that came later.
        write(tmp_path, "b", invocation(line(3, "b3")), invocation(line(0, "b0"), line(2, "b2"), line(5, "b5"))),
    ]

    assert messages(newest(sources, Wanted())) == ["b0", "a1", "b2", "b3", "a4", "b5"]
    assert messages(newest(sources, Wanted(), 3)) == ["b3", "a4", "b5"]
    assert messages(newest(sources, Wanted(since=_NOON + 2.5))) == ["b3", "a4", "b5"]


def test_parts_of_a_long_invocation_stand_among_others(tmp_path: Path) -> None:
    start, *_, end, report = invocation()
    source = write(
        tmp_path,
        "a",
        [start, "printed", line(0, "first", "aaaa"), "RUNNING RequestId: 0b1"],
        invocation(line(1.9, "of another", "bbbb")),
        [line(1, "second", "cccc"), "RUNNING RequestId: 0b1"],
        [end, report],
    )

    assert messages(newest([source], Wanted())) == ["printed", "first", "second", "of another"]
    assert messages(newest([source], Wanted(correlation="aaaa"))) == ["printed", "first"]
    # Written after what happened later: the search does not end at the first line that is too old.
    assert messages(newest([source], Wanted(since=_NOON + 1.5))) == ["of another"]
    assert messages(newest([source], Wanted(), 1)) == ["of another"]
    assert "RUNNING RequestId: 0b1" in messages(newest([source], Wanted(machinery=True)))


def test_a_log_that_was_begun_anew_goes_on_in_the_older_file(tmp_path: Path) -> None:
    source = write(tmp_path, "a", invocation(line(1, "older")))
    source.path.rename(source.older_path)
    write(tmp_path, "a", invocation(line(2, "newer")))

    assert messages(newest([source], Wanted())) == ["older", "newer"]


def bytes_read() -> int:
    """By this process until now, in system calls."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_the_last_lines_of_a_big_log_are_found_without_reading_it(tmp_path: Path) -> None:
    for minute in range(32):  # the lines of one are equally new: all of them have to be looked at
        text = "\n".join(invocation(line(60 * minute, "x" * 200)))
        source = write(tmp_path, "a", [text] * (2 * _MIB // len(text)))
    write(tmp_path, "a", invocation(line(60 * 32, "last")))

    tracemalloc.start()
    before_bytes = bytes_read()
    try:
        found = newest([source], Wanted(), 100)
        read_bytes = bytes_read() - before_bytes
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (len(found), found[-1].message) == (100, "last")
    assert read_bytes < 3 * _MIB
    assert peak_bytes < _MIB


def test_a_request_is_followed_from_the_step_to_the_consumer(tmp_path: Path) -> None:
    sources = [
        write(tmp_path, "step6_reserve", invocation("trying", line(1, "answered", "aaaa1111")),
              invocation("other", line(2, "answered", "aabb"))),
        write(tmp_path, "on_reservation_events_issue_tickets",
              invocation(line(3, "applied other", "aabb"), line(4, "applied", "aaaa1111"))),
    ]  # fmt: skip

    found = newest(sources, Wanted(correlation="aaaa"))

    assert messages(found) == ["trying", "answered", "applied"]


def test_levels_and_failed_answers(tmp_path: Path) -> None:
    lines = [line(1, "fine", status=409), line(2, "refused", status=503), line(3, "odd", level="WARNING"),
             line(4, "bad", level="ERROR"), line(5, "quiet", level="DEBUG")]  # fmt: skip
    source = write(tmp_path, "a", invocation(*lines))

    def at_least(level: str) -> list[str]:
        return messages(newest([source], Wanted(rank_min=logs.level_rank(level))))

    assert at_least("error") == ["refused", "bad"]
    assert at_least("warning") == ["refused", "odd", "bad"]
    assert at_least("info") == ["fine", "refused", "odd", "bad"]
    assert at_least("debug")[-1] == "quiet"


def test_the_fast_gateways_log_has_no_invocations(tmp_path: Path) -> None:
    path = tmp_path / "gateway.log"
    path.write_text("\n".join([line(1, "request failed"), "Panic:", "  at x", line(2, "other"), "tail"]))
    source = Source("gateway", path, has_invocations=False)

    found = newest([source], Wanted())

    assert messages(found) == ["request failed", "Panic:", "other", "tail"]
    assert messages(newest([source], Wanted(), 1)) == ["tail"]


# ---- following ----


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    instance = Instance("main", tmp_path, {"redis": 1})
    (instance.log_dir / "functions").mkdir(parents=True)
    (tmp_path / "functions" / "step5_seats").mkdir(parents=True)
    (tmp_path / "functions" / "step5_seats" / "app.py").touch()
    return instance


def test_following_sees_new_lines_new_files_and_files_that_were_cut(instance: Instance) -> None:
    folder = instance.log_dir / "functions"
    source = write(folder, "a", invocation(line(0, "before")))
    follower = Follower(lambda: all_sources(instance))

    def new() -> list[str]:
        return messages(follower.poll(Wanted()))

    assert messages(newest([source], Wanted(), 10, follower.ends)) == ["before"]
    assert new() == []
    write(folder, "b", invocation(line(1, "new file")))
    write(folder, "a", invocation(line(2, "new line")))
    assert new() == ["new file", "new line"]
    source.path.write_text("")
    assert new() == []
    write(folder, "a", invocation(line(3, "after cutting")))
    assert new() == ["after cutting"]
    follower.close()


def test_what_came_before_a_file_was_begun_anew_is_not_lost(instance: Instance) -> None:
    folder = instance.log_dir / "functions"
    source = write(folder, "a", invocation(line(0, "before")))
    follower = Follower(lambda: all_sources(instance))
    write(folder, "a", invocation(line(1, "last of the old")))
    source.path.rename(source.older_path)
    write(folder, "a", invocation(line(2, "first of the new")))

    assert messages(follower.poll(Wanted())) == ["last of the old", "first of the new"]
    follower.close()


def test_half_a_line_waits_for_its_other_half(instance: Instance) -> None:
    folder = instance.log_dir / "functions"
    source = write(folder, "a", invocation(line(0, "before")))
    follower = Follower(lambda: all_sources(instance))
    text = line(1, "whole") + "\n"
    with source.path.open("a") as file:
        file.write(text[:30])
        file.flush()
        assert follower.poll(Wanted()) == []
        file.write(text[30:])

    assert messages(follower.poll(Wanted())) == ["whole"]
    follower.close()


# ---- the verb ----


def run(instance: Instance, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(Instance, "load_existing", classmethod(lambda _: instance))
    return logs.run(arguments)


def test_no_log_yet_says_what_to_do(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(instance, monkeypatch) == 0
    assert "scripts/tour" in capsys.readouterr().err


def test_a_function_is_named_in_full_in_short_or_as_deployed(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(instance.log_dir / "functions", "step5_seats", invocation(line(1, "mine")))
    write(instance.log_dir / "functions", "step6_reserve", invocation(line(1, "other")))

    for name in ("step5_seats", "step5", "seats", "encore-step5_seats"):
        assert run(instance, monkeypatch, name) == 0
        shown = capsys.readouterr().out
        assert "mine" in shown and "other" not in shown
    assert run(instance, monkeypatch, "nosuch") == 2
    assert "  step5_seats\n" in capsys.readouterr().err
    assert run(instance, monkeypatch, "step") == 2
    assert "several functions are called 'step'" in capsys.readouterr().err


def test_an_empty_name_is_no_name() -> None:
    with pytest.raises(UnknownFunction):
        find_name("encore-", ["only_one"])


@pytest.mark.parametrize(
    "arguments", [("--since", "yesterday"), ("--lines", "0"), ("--lines", "x"), ("--level", "loud")]
)
def test_values_that_make_no_sense_are_refused(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        run(instance, monkeypatch, *arguments)

    assert refused.value.code == 2
