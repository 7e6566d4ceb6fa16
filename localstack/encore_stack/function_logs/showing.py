"""Events as text for people, one line each, and as JSON lines for programs."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, TextIO

import msgspec

from encore_stack.function_logs.events import Event

CORRELATION_LENGTH_SHOWN = 8
_SHOWN_ELSEWHERE = frozenset({"status", "duration_ms", "method", "route", "correlation_id"})
_SAYS_NOTHING = frozenset(
    {
        "service", "step", "function_name", "function_memory_size", "function_arn", "function_request_id", "cold_start",
        "xray_trace_id", "sampling_rate", "taskName", "exception_name", "stack_trace", "location",
    }
)  # fmt: skip
_LOCATED = frozenset({"WARNING", "ERROR", "CRITICAL"})
_UNPACKED = re.compile(r"""(File ")[^"]*(?:/encore-layers/[0-9a-f]{64}/python/|-tasks/[^/"]+/code/)""")
"""Where LocalStack has unpacked a layer or a function: says nothing, and fills the screen."""

_RED, _YELLOW, _DIM, _BOLD = "31", "33", "2", "1"


class Painter:
    """Colours, where they are wanted."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, text: str, code: str | None) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour and code and text else text


def wants_colour(stream: TextIO) -> bool:
    """Whether the stream is a terminal and the person has not asked for none (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def as_text(event: Event, paint: Painter, source_width: int) -> str:
    """Time, function, level, correlation id, message, the fields; what belongs to it is indented below."""
    correlation = next(iter(event.correlations)) if len(event.correlations) == 1 else ""
    level_colour = _RED if event.rank >= 40 else _YELLOW if event.rank >= 30 else None
    words = [
        paint(_clock(event.time), _DIM),
        paint(f"{event.source:<{source_width}}", _BOLD),
        paint(f"{event.level:<7}", level_colour),
        f"{correlation[:CORRELATION_LENGTH_SHOWN] or '-':<{CORRELATION_LENGTH_SHOWN}}",
        event.message,
        *_fields(event, paint),
    ]
    indent = " " * 8
    details = [indent + paint(without_unpacked(line), level_colour) for line in event.details]
    return "\n".join(["  ".join(words), *details])


def without_unpacked(line: str) -> str:
    """A traceback, or a line of it, with files as they are called in their layer: ``booking/seats/holds.py``."""
    return _UNPACKED.sub(r"\1", line)


def as_json(event: Event) -> str:
    """The line as it was logged if it is JSON; what was printed as the message of such a line."""
    if event.raw.startswith("{"):
        with suppress(msgspec.DecodeError):
            msgspec.json.decode(event.raw)
            return event.raw
    at = datetime.fromtimestamp(event.time).astimezone().isoformat(timespec="milliseconds")
    line = {"level": event.level, "message": event.raw, "timestamp": at, "service": event.source}
    return msgspec.json.encode(line).decode()


def _clock(unix_s: float) -> str:
    """Local time; with the day, where that is not today."""
    at = datetime.fromtimestamp(unix_s)
    day = "" if at.date() == datetime.now().date() else f"{at:%m-%d} "
    return f"{day}{at:%H:%M:%S}.{at.microsecond // 1000:03d}"


def _fields(event: Event, paint: Painter) -> Iterator[str]:
    fields = event.fields
    if "route" in fields:
        yield f"{fields.get('method', '')} {fields['route']}".strip()
    if "status" in fields:
        status = fields["status"]
        bad = isinstance(status, int) and status >= 400
        yield paint(str(status), (_RED if status >= 500 else _YELLOW) if bad else None)
    if "duration_ms" in fields:
        yield f"{fields['duration_ms']} ms"
    rest = {name: value for name, value in fields.items() if name not in _SHOWN_ELSEWHERE | _SAYS_NOTHING}
    if event.level in _LOCATED and "location" in fields:
        rest["location"] = fields["location"]
    if rest:
        yield paint(" ".join(f"{name}={_value(value)}" for name, value in rest.items()), _DIM)


def _value(value: Any) -> str:
    if isinstance(value, str) and value and not any(letter in value for letter in ' "\n='):
        return value
    return msgspec.json.encode(value).decode()
