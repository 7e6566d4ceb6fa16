"""Sample events of the functions, `tests/events/<function>/<name>.<outcome>.json`: found, read, their papers filled in.

`tests/events/README.md` says what the names mean and which placeholders there are.
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

_PLACEHOLDER = re.compile(r"\{\{([a-z_0-9]+)(?::([^{}\s]*))?\}\}")
_BASE64 = "{{base64}}"
ERROR, FAILED, OK = "error", "failed", "ok"

Fill = Callable[[str, str], str]
"""The value of a placeholder: its name and its argument ('' without one). Raises BadEvent for a name not known."""


class BadEvent(Exception):
    """The event is no JSON object, has a placeholder that nobody knows, or there is no sample of that name."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An event with its outcome: an HTTP status, or `ok`, `failed` (records to come again), `error` (it raises)."""

    function: str
    name: str
    outcome: str
    path: Path

    @property
    def is_default(self) -> bool:
        """The sample that is named as its function (`reserve` for step6_reserve) is the one that is meant without a
        name."""
        return self.function.endswith(f"_{self.name}")

    @property
    def text(self) -> str:
        return self.path.read_text()


def samples_of(project_dir: Path, function: str) -> list[Sample]:
    """All samples of a function, the default one first."""
    paths = (project_dir / "tests" / "events" / function).glob("*.*.json")
    samples = []
    for path in paths:
        name, outcome, _ = path.name.split(".", 2)
        samples.append(Sample(function, name, outcome, path))
    return sorted(samples, key=lambda sample: (not sample.is_default, sample.outcome, sample.name))


def find_sample(project_dir: Path, function: str, name: str | None) -> Sample:
    """The sample of this name, else the default one. Raises BadEvent with the names that there are."""
    samples = samples_of(project_dir, function)
    for sample in samples:
        if sample.name == name or (name is None and sample.is_default):
            return sample
    there = ", ".join(sample.name for sample in samples) or "none"
    what = f"has no sample '{name}'" if name else "has no default sample"
    raise BadEvent(f"{function} {what}; there are: {there} (or name a file, - for standard input, or JSON)")


def event_from(text: str, fill: Fill) -> dict[str, Any]:
    """The event that the text is, every placeholder filled in. Raises BadEvent, and what ``fill`` raises.

    A placeholder has one value throughout an event. ``{"{{base64}}": …}`` becomes base64, as Kafka's records have it.
    """
    try:
        event = msgspec.json.decode(text)
    except msgspec.DecodeError as fault:
        raise BadEvent(f"the event is not JSON: {fault}") from fault
    if not isinstance(event, dict):
        raise BadEvent(f"an event is a JSON object, this is a {type(event).__name__}")
    known = cache(fill)
    filled: dict[str, Any] = _filled(event, lambda match: known(match[1], match[2] or ""))
    return filled


def placeholders_of(text: str) -> set[tuple[str, str]]:
    """Names and arguments of the placeholders that stand in a text."""
    return {(match[1], match[2] or "") for match in _PLACEHOLDER.finditer(text) if match[0] != _BASE64}


def outcome_of(answer: Any, *, is_error: bool) -> str:
    """What became of an event, in the words of a sample's file name."""
    if is_error:
        return ERROR
    if isinstance(answer, dict) and "statusCode" in answer:
        return str(answer["statusCode"])
    return FAILED if isinstance(answer, dict) and answer.get("batchItemFailures") else OK


def _filled(value: Any, fill: Callable[[re.Match[str]], str]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(fill, value)
    if isinstance(value, list):
        return [_filled(each, fill) for each in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {_BASE64}:
        content = _filled(value[_BASE64], fill)
        text = content.encode() if isinstance(content, str) else msgspec.json.encode(content)
        return base64.b64encode(text).decode()
    return {name: _filled(each, fill) for name, each in value.items()}
