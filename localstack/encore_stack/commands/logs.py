"""`scripts/logs`: what the functions have logged, in the order of time, readable."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import datetime

from encore_stack.function_logs import (
    Event,
    Follower,
    Painter,
    Source,
    Wanted,
    all_sources,
    as_json,
    as_text,
    newest,
    wants_colour,
)
from encore_stack.function_logs.events import level_rank
from encore_stack.function_logs.sources import GATEWAY
from encore_stack.functions import UnknownFunction, find_name, function_names
from encore_stack.instance import Instance

_LINES_DEFAULT = 100
_LINES_BEFORE_FOLLOWING = 10
_POLL_S = 0.2
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LEVELS = ("debug", "info", "warning", "error", "critical")


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 shown (also when there was nothing, and when --follow was ended by Ctrl-C), 2 misused."""
    options = _parser().parse_args(arguments)
    instance = Instance.load_existing()
    try:
        logs = _Logs(instance, options.function)
    except UnknownFunction as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    wanted = Wanted(
        correlation=options.correlation,
        since=options.since,
        rank_min=level_rank(options.level),
        machinery=options.all,
    )
    printer = _Printer(logs, as_json_lines=options.json)
    lines: int | None = options.lines
    if lines is None and options.since is None and options.correlation is None:
        lines = _LINES_BEFORE_FOLLOWING if options.follow else _LINES_DEFAULT
    if options.follow:
        return _follow(logs, wanted, lines, printer)
    sources = logs.sources()
    if not any(source.path.stat().st_size for source in sources):
        print(_nothing_yet(instance, logs.only), file=sys.stderr)
        return 0
    if not printer.print_all(newest(sources, wanted, lines)):
        print("no line of the log is like that", file=sys.stderr)
    return 0


class _Logs:
    """The logs that are asked for: all, or those of one function. Raises UnknownFunction."""

    def __init__(self, instance: Instance, typed: str | None) -> None:
        self._instance = instance
        self.only: str | None = None
        if typed:
            names = {GATEWAY, *function_names(instance.project_dir), *(each.name for each in all_sources(instance))}
            self.only = find_name(typed, names)

    def sources(self) -> list[Source]:
        return [source for source in all_sources(self._instance) if self.only in (None, source.name)]

    @property
    def name_width(self) -> int:
        """The width of the column of names: as the functions are called, so that it does not change while following."""
        names = [self.only] if self.only else function_names(self._instance.project_dir)
        return max(map(len, names), default=0)


class _Printer:
    def __init__(self, logs: _Logs, *, as_json_lines: bool) -> None:
        self._paint = Painter(colour=wants_colour(sys.stdout))
        self._name_width = logs.name_width
        self._as_json_lines = as_json_lines

    def print_all(self, events: Sequence[Event]) -> int:
        for event in events:
            print(as_json(event) if self._as_json_lines else as_text(event, self._paint, self._name_width))
        sys.stdout.flush()
        return len(events)


def _follow(logs: _Logs, wanted: Wanted, lines: int | None, printer: _Printer) -> int:
    follower = Follower(logs.sources)
    try:
        if not printer.print_all(newest(logs.sources(), wanted, lines, follower.ends)):
            print("waiting for the first line (Ctrl-C ends)", file=sys.stderr)
        while True:
            printer.print_all(follower.poll(wanted))
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return 0
    finally:
        follower.close()


def _nothing_yet(instance: Instance, only: str | None) -> str:
    who = f"{only} of instance '{instance.name}'" if only else f"no function of instance '{instance.name}'"
    return f"{who} has {'not ' if only else ''}logged anything yet: scripts/tour calls all steps, scripts/invoke one"


def _since(text: str) -> float:
    if match := _DURATION.fullmatch(text):
        return time.time() - float(match[1]) * _SECONDS[match[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is neither 30s, 5m, 2h, 1d nor a time such as 2026-11-23T09:30"
        ) from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/logs", add_help=False)  # scripts/logs explains the options
    parser.add_argument("function", nargs="?")
    parser.add_argument("-f", "--follow", action="store_true")
    parser.add_argument("-c", "--correlation", metavar="ID")
    parser.add_argument("-n", "--lines", type=_count, metavar="N")
    parser.add_argument("--since", type=_since, metavar="WHEN")
    parser.add_argument("--level", choices=_LEVELS, type=str.lower, default="debug")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser
