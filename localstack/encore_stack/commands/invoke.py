"""`scripts/invoke`: call one deployed function with a sample event, and show its answer and its log."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import msgspec

from encore_stack import progress
from encore_stack.function_logs import Painter, Wanted, as_text, events_of, wants_colour, without_unpacked
from encore_stack.functions import UnknownFunction, find_name, function_names
from encore_stack.instance import PROJECT_DIR, Instance
from encore_stack.invocation import Invocation, NotInvoked, invoke
from encore_stack.papers import NoPapers, Papers
from encore_stack.parts.localstack import deployed_api_url
from encore_stack.sample_events import BadEvent, Sample, event_from, find_sample, outcome_of, samples_of

_DIM, _RED = "2", "31"


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 answered, 1 the function failed or did other than the sample's name says, 2 misused."""
    options = _parser().parse_args(arguments)
    if options.list:
        return _list(options.function)
    if not options.function:
        print("error: which function? scripts/invoke --list shows all, with their samples", file=sys.stderr)
        return 2
    try:
        function = find_name(options.function, function_names(PROJECT_DIR))
        sample, text = _chosen(function, options.event)
        event_from(text, lambda name, argument: "")  # what is no event can be said without a stack
    except (UnknownFunction, BadEvent) as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    instance = Instance.load_existing()
    api_url = deployed_api_url(instance)
    if api_url is None:
        print("error: nothing is deployed: scripts/up starts the stack and deploys", file=sys.stderr)
        return 1
    try:
        return _call(instance, api_url, function, sample, text)
    except BadEvent as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    except (NoPapers, NotInvoked) as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1


def _call(instance: Instance, api_url: str, function: str, sample: Sample | None, text: str) -> int:
    with Papers(api_url) as papers:
        event = event_from(text, papers.fill)
    if function.startswith("every_minute_"):
        _tell(f"{function} is a background loop: one run takes a little over a minute")
    with redirect_stdout(sys.stderr), progress.alive(f"call {function}"):
        done = invoke(instance.url("localstack"), function, event)
    _show(function, sample, done)
    outcome = outcome_of(done.answer, is_error=done.is_error)
    if sample and outcome != sample.outcome:
        _tell(f"error: the sample '{sample.name}' expects {sample.outcome}, this was {outcome}")
        return 1
    return 1 if done.is_error else 0


def _chosen(function: str, given: str | None) -> tuple[Sample | None, str]:
    """The sample, where it is one, and the text of the event. Raises BadEvent."""
    if given == "-":
        return None, sys.stdin.read()
    if given and given.lstrip().startswith("{"):
        return None, given
    if given and ("/" in given or given.endswith(".json")):
        # scripts/invoke works in the project's folder, the path is meant from where the person stands.
        path = Path(os.environ.get("ENCORE_CALLER_DIR", "."), given)
        try:
            return None, path.read_text()
        except (OSError, UnicodeDecodeError) as fault:
            raise BadEvent(f"{given} cannot be read: {getattr(fault, 'strerror', None) or fault}") from fault
    sample = find_sample(PROJECT_DIR, function, given)
    return sample, sample.text


def _show(function: str, sample: Sample | None, done: Invocation) -> None:
    """The answer's body on standard output, so that it can be piped; all about it on standard error."""
    paint = Painter(colour=wants_colour(sys.stderr))
    answer = done.answer
    is_http = isinstance(answer, dict) and "statusCode" in answer and not done.is_error
    what = "failed" if done.is_error else f"answered {answer['statusCode']}" if is_http else "returned"
    report = f" (the function itself {done.report})" if done.report else ""
    called = f"{function} {sample.name}" if sample else function
    _tell(paint(f"{called}: {what} after {done.took_s * 1000:.0f} ms{report}", _RED if done.is_error else "1"))
    if is_http:
        for name, value in sorted(_headers(answer).items()):
            _tell(paint(f"{name}: {value}", _DIM))
    said = None
    if done.is_error:
        said = _error(answer)
        _tell(paint(said, _RED))
        for frame in _frames(answer):
            _tell(without_unpacked(frame))
    elif is_http:
        _print_body(answer.get("body"))
    else:
        print(_pretty(answer), flush=True)
    events = filter(Wanted().has, events_of(function, done.log_lines, time.time()))
    # The log repeats the error that was answered.
    if shown := [event for event in events if not said or event.message != said.splitlines()[0]]:
        _tell(paint("log:", _DIM))
        for event in shown:
            _tell(as_text(event, paint, 0))


def _headers(answer: dict[str, Any]) -> dict[str, str]:
    multi = answer.get("multiValueHeaders") or {}
    return {**(answer.get("headers") or {}), **{name: ", ".join(map(str, values)) for name, values in multi.items()}}


def _error(answer: Any) -> str:
    """Type and message of Lambda's error body."""
    if not isinstance(answer, dict) or "errorMessage" not in answer:
        return _pretty(answer)
    return without_unpacked(f"{answer.get('errorType', 'Error')}: {answer['errorMessage']}")


def _frames(answer: Any) -> list[str]:
    """The function's own frames, outermost first."""
    return [str(frame).rstrip() for frame in (isinstance(answer, dict) and answer.get("stackTrace")) or []]


def _print_body(body: Any) -> None:
    if not body:
        return
    try:
        print(_pretty(msgspec.json.decode(body)), flush=True)
    except (msgspec.DecodeError, TypeError):
        print(body if isinstance(body, str) else _pretty(body), flush=True)


def _pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _list(typed: str | None) -> int:
    names = function_names(PROJECT_DIR)
    try:
        shown = [find_name(typed, names)] if typed else names
    except UnknownFunction as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    for function in shown:
        print(function)
        for sample in samples_of(PROJECT_DIR, function):
            print(f"  {sample.name:<26} {sample.outcome:<7}{'(default)' if sample.is_default else ''}".rstrip())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/invoke", add_help=False)  # scripts/invoke explains the options
    parser.add_argument("function", nargs="?")
    parser.add_argument("event", nargs="?")
    parser.add_argument("--list", action="store_true")
    return parser
