"""The lines of one invocation, or of a part of it, as events: each with its time, its level, its fields and the
requests that it is about.

A function's log holds Powertools' JSON lines, metrics in embedded metric format, Lambda's own START, END and REPORT,
the executor's RUNNING, and whatever else was printed: tracebacks, the debugging print of a minute ago.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

METRIC, LAMBDA, PRINT = "METRIC", "LAMBDA", "PRINT"
_RANKS = {"DEBUG": 10, "INFO": 20, PRINT: 20, METRIC: 20, LAMBDA: 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
_LAMBDA = re.compile(r"(START|END|REPORT|RUNNING) RequestId: |INIT_(START|REPORT) ")
_MARKED = re.compile(r"\[(DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL)\]\s*")
_ISO_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\s*")
_REQUEST_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\s+")
_ENDED_BADLY = re.compile(r"Task timed out after |Error: Runtime exited|^Traceback ")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a function said. ``at`` is a Unix time in seconds, ``raw`` the line as it stands in the log."""

    at: float | None
    source: str
    level: str
    message: str
    raw: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    details: tuple[str, ...] = ()
    """Lines to be shown below: a traceback, or what else was printed along with the first line."""
    correlations: frozenset[str] = frozenset()
    """The requests that it is about: its own correlation id, else those of its whole invocation or part."""

    @property
    def time(self) -> float:
        """``at``, for events as ``events_of`` returns them: those all have one."""
        assert self.at is not None
        return self.at

    @property
    def rank(self) -> int:
        """How grave it is, from 10 (debug) to 50 (critical). An answer of 5xx is as grave as an error."""
        rank = _RANKS.get(self.level, 20)
        status = self.fields.get("status")
        return max(rank, 40) if isinstance(status, int) and status >= 500 else rank

    @property
    def is_machinery(self) -> bool:
        """Metrics, and what Lambda itself says of an invocation."""
        return self.level in (METRIC, LAMBDA)


def level_rank(name: str) -> int:
    """The rank of a level's name."""
    return _RANKS[name.upper()]


def events_of(source: str, lines: Sequence[str], latest: float) -> list[Event]:
    """The events of one invocation or part of one, in its order.

    What has no time of its own gets that of its neighbour; where none has one, ``latest`` (a Unix time in seconds).
    """
    events = list(_read(source, lines))
    ids = frozenset(id for event in events for id in event.correlations)
    at = next((event.at for event in events if event.at is not None), latest)
    complete = []
    for event in events:
        at = at if event.at is None else event.at
        complete.append(replace(event, at=at, correlations=event.correlations or ids))
    return complete


def _read(source: str, lines: Sequence[str]) -> Iterator[Event]:
    printed: list[str] = []
    for line in lines:
        event = _structured(source, line)
        if printed and (event or _MARKED.match(line) or _ISO_TIME.match(line)):
            yield _printed(source, printed)
            printed = []
        if event:
            yield event
        elif line.strip():
            printed.append(line)
    if printed:
        yield _printed(source, printed)


def _structured(source: str, line: str) -> Event | None:
    if _LAMBDA.match(line):
        return Event(None, source, LAMBDA, line.rstrip(), line)
    if not line.startswith("{"):
        return None
    try:
        content = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if isinstance(content.get("_aws"), dict):
        return _metric(source, line, content)
    if "message" not in content or "level" not in content:
        return None
    message = content["message"]
    correlation = content.get("correlation_id")
    return Event(
        _logged_at(content.get("timestamp")),
        source,
        str(content["level"]).upper(),
        message if isinstance(message, str) else msgspec.json.encode(message).decode(),
        line,
        {name: value for name, value in content.items() if name not in ("message", "level", "timestamp", "exception")},
        tuple(str(content.get("exception") or "").splitlines()),
        frozenset({str(correlation)} if correlation else ()),
    )


def _metric(source: str, line: str, content: dict[str, Any]) -> Event:
    about = content.pop("_aws")
    names = [
        metric["Name"]
        for group in about.get("CloudWatchMetrics", ())
        for metric in group.get("Metrics", ())
        if "Name" in metric
    ]
    values = {name: content.pop(name, None) for name in names}
    shown = {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in values.items()}
    at = about.get("Timestamp")
    text = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    )
    return Event(at / 1000 if isinstance(at, int) else None, source, METRIC, text, line, content)


def _printed(source: str, lines: list[str]) -> Event:
    """Plain lines: the first is the message, what follows belongs to it."""
    first, *rest = lines
    level, text, at = PRINT, first.rstrip(), None
    if marked := _MARKED.match(text):
        level = {"WARN": "WARNING"}.get(marked[1], marked[1])
        text = text[marked.end() :]
    elif _ENDED_BADLY.search(text):
        level = "ERROR"
    if stamp := _ISO_TIME.match(text):
        at = datetime.fromisoformat(stamp[0].strip()).timestamp()
        text = _REQUEST_ID.sub("", text[stamp.end() :], count=1)
    return Event(at, source, level, text, "\n".join(lines), details=tuple(line.rstrip() for line in rest))


def _logged_at(text: object) -> float | None:
    """Powertools' ``2026-11-23 00:10:35,551+0000``, or any ISO time."""
    try:
        at = datetime.fromisoformat(str(text).replace(",", "."))
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
