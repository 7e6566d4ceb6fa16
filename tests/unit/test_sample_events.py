"""The sample events: each function has one, each is what the function would really get, each placeholder is known."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from encore_stack.commands import invoke
from encore_stack.instance import PROJECT_DIR, BadInstance
from encore_stack.invocation import Invocation, NotInvoked, _refuse_failures
from encore_stack.papers import PLACEHOLDERS, Papers
from encore_stack.sample_events import (
    BadEvent,
    Sample,
    event_from,
    find_sample,
    outcome_of,
    placeholders_of,
    samples_of,
)
from event_source import msk
from fast_gateway import proxy
from fast_gateway.settings import read_template
from support.functions import FUNCTIONS

SAMPLES = [sample for function in FUNCTIONS for sample in samples_of(PROJECT_DIR, function)]


def each_sample(prefix: str = "") -> pytest.MarkDecorator:
    samples = [sample for sample in SAMPLES if sample.function.startswith(prefix)]
    return pytest.mark.parametrize("sample", samples, ids=[f"{sample.function}-{sample.name}" for sample in samples])


def of(sample: Sample) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(sample.text)
    return content


def shape(value: Any) -> Any:
    """The names and types of a value, without its contents."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_has_a_sample_that_is_meant_without_a_name(function: str) -> None:
    assert find_sample(PROJECT_DIR, function, None).is_default


def test_every_file_is_a_sample_of_a_function() -> None:
    files = set((PROJECT_DIR / "tests" / "events").rglob("*.json"))

    assert files == {sample.path for sample in SAMPLES}


@each_sample()
def test_names_say_the_outcome_and_placeholders_are_known(sample: Sample) -> None:
    assert sample.outcome.isdecimal() or sample.outcome in ("ok", "failed", "error")
    known = {spelled.strip("{}").partition(":")[0] for spelled in PLACEHOLDERS}
    assert {name for name, _ in placeholders_of(sample.text)} <= known


@each_sample("step")
def test_a_steps_sample_is_the_event_that_api_gateway_would_send(sample: Sample) -> None:
    event = of(sample)
    method, resource, path = event["httpMethod"], event["resource"], event["path"]
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": urlencode(event["queryStringParameters"] or {}),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in event["headers"].items()},
    }
    sent = proxy.event_of(environ, path, resource, event["pathParameters"], (event["body"] or "").encode())
    for differs in ("requestId", "extendedRequestId", "requestTime", "requestTimeEpoch"):
        sent["requestContext"][differs] = event["requestContext"][differs]

    assert event == sent
    assert path == resource.format(**(event["pathParameters"] or {}))
    routes = {(route.method, route.path) for route in read_template().function(sample.function).routes}
    assert (method, resource) in routes


@each_sample("on_reservation_events_")
def test_a_consumers_sample_has_the_shape_of_the_event_source(sample: Sample) -> None:
    event = event_from(sample.text, lambda name, argument: "filled-in")
    record = SimpleNamespace(
        topic="reservation-events", partition=0, offset=15, timestamp=1, timestamp_type=0, key=b"k", value=b"v",
        headers=[("correlation_id", b"c"), ("type", b"t")],
    )  # fmt: skip

    assert shape(event) == shape(msk.event_of([[record]], "arn", "127.0.0.1:1"))


@each_sample("every_")
def test_a_scheduled_functions_sample_is_a_scheduled_event_of_its_rule(sample: Sample) -> None:
    event = of(sample)

    assert (event["detail-type"], event["source"]) == ("Scheduled Event", "aws.events")
    assert event["resources"][0].endswith(f"/encore-{sample.function}")
    assert read_template().function(sample.function).schedules


# ---- reading and filling ----


def test_a_placeholder_has_one_value_throughout_an_event() -> None:
    made: list[str] = []

    def fill(name: str, argument: str) -> str:
        made.append(f"{name}/{argument}")
        return f"value{len(made)}"

    text = (
        '{"a": "Bearer {{pass:1}}", "b": ["{{pass:1}}"], "c": "{{pass:2}} {{uuid}}", "body": "{\\"n\\": {{seat:1}}}"}'
    )
    event = event_from(text, fill)

    assert event == {"a": "Bearer value1", "b": ["value1"], "c": "value2 value3", "body": '{"n": value4}'}
    assert made == ["pass/1", "pass/2", "uuid/", "seat/1"]


def test_kafkas_keys_and_values_are_written_as_they_read() -> None:
    text = '{"key": {"{{base64}}": "{{user}}"}, "value": {"{{base64}}": {"id": "{{user}}", "n": [1]}}}'

    event = event_from(text, lambda name, argument: "you")

    assert base64.b64decode(event["key"]) == b"you"
    assert json.loads(base64.b64decode(event["value"])) == {"id": "you", "n": [1]}


@pytest.mark.parametrize(("text", "words"), [("{", "not JSON"), ("[1]", "JSON object"), ('"{{user}}"', "JSON object")])
def test_what_is_no_event_is_refused_before_anything_is_made(text: str, words: str) -> None:
    with pytest.raises(BadEvent, match=words):
        event_from(text, lambda name, argument: pytest.fail("something was made"))


@pytest.mark.parametrize(("name", "argument"), [("nosuch", ""), ("pass", ""), ("pass", "one"), ("user", "1")])
def test_an_unknown_placeholder_is_refused_with_those_there_are(name: str, argument: str) -> None:
    with Papers("http://127.0.0.1:1") as papers, pytest.raises(BadEvent, match=r"\{\{pass:CONCERT\}\}"):
        papers.fill(name, argument)


def test_an_unknown_sample_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadEvent, match=r"reserve, .*seat_taken"):
        find_sample(PROJECT_DIR, "step6_reserve", "nosuch")


@dataclass
class Answer:
    answer: Any
    is_error: bool
    outcome: str


@pytest.mark.parametrize(
    "case",
    [
        Answer({"statusCode": 404, "body": "{}"}, False, "404"),
        Answer({"errorMessage": "no"}, True, "error"),
        Answer({"batchItemFailures": []}, False, "ok"),
        Answer({"batchItemFailures": [{"itemIdentifier": "x"}]}, False, "failed"),
        Answer(None, False, "ok"),
    ],
    ids=lambda case: case.outcome,
)
def test_outcomes(case: Answer) -> None:
    assert outcome_of(case.answer, is_error=case.is_error) == case.outcome


@pytest.mark.parametrize(("status", "words"), [(404, "not deployed"), (429, "concurrency"), (500, "500")])
def test_a_call_that_was_not_made_says_what_to_do(status: int, words: str) -> None:
    with pytest.raises(NotInvoked, match=words):
        _refuse_failures(httpx.Response(status, text="why"), "step1_join_queue")


def test_samples_are_listed_with_the_default_first(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "events" / "step9_shout"
    folder.mkdir(parents=True)
    for name in ("a.404.json", "shout.201.json", "b.200.json", "notes.json"):
        (folder / name).touch()

    listed: Sequence[str] = [sample.name for sample in samples_of(tmp_path, "step9_shout")]

    assert listed == ["shout", "b", "a"]


# ---- the verb, as far as it needs no stack ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nosuch",), "no function is called 'nosuch'"),
        (("step",), "several functions are called 'step'"),
        (("step3", "nosuch"), "there are: concerts, "),
        (("step3", "./nosuch.json"), "cannot be read: No such file"),
        (("step3", '{"a"'), "not JSON"),
        ((), "which function?"),
        (("--list", "nosuch"), "no function is called 'nosuch'"),
    ],
)
def test_invoke_refuses_what_makes_no_sense(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke.run(arguments) == 2
    assert words in capsys.readouterr().err


def test_invoke_lists_functions_with_their_samples(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke.run(["--list"]) == 0

    listed = capsys.readouterr().out
    assert all(f"{function}\n" in listed for function in FUNCTIONS)
    assert "  seat_taken                 409\n" in listed


def test_invoke_without_an_instance_says_what_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCORE_INSTANCE", "never-made")
    with pytest.raises(BadInstance, match="scripts/up makes it"):
        invoke.run(["step3"])


@pytest.mark.parametrize(
    ("answer", "is_error", "out", "err"),
    [
        ({"statusCode": 200, "body": '{"a": 1}'}, False, '{\n  "a": 1\n}\n', "f: answered 200 after 5 ms\n"),
        ({"statusCode": 200, "body": "plain", "headers": {"ETag": "e"}}, False, "plain\n", "ETag: e\n"),
        ({"statusCode": 204, "body": ""}, False, "", "f: answered 204"),
        (None, False, "null\n", "f: returned"),
        ({"errorType": "OSError", "errorMessage": "no", "stackTrace": ["  here\n"]}, True, "", "OSError: no\n  here\n"),
        ({"errorMessage": "RequestId: 1 Error: Task timed out"}, True, "", "Error: RequestId: 1 Error: Task timed out"),
        (["odd"], True, "", '"odd"'),
    ],
)
def test_the_body_goes_to_standard_output_all_about_it_to_standard_error(
    answer: Any, is_error: bool, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    invoke._show("f", None, Invocation(answer, is_error, (), 0.005))

    shown = capsys.readouterr()
    assert shown.out == out
    assert err in shown.err
    assert "log:" not in shown.err
