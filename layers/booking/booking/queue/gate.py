"""Turning a concert's gate while it runs: who may come in, how many, how fast, and what people are told.

Postgres has the settings, as an append-only history; the running line has a copy. A change is written there and told to
the line at once; should that fail, the background loop tells it within a second of the line's being there again.
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from booking.platform.postgres import primary
from booking.platform.problems import BadRequest, Conflict
from booking.platform.redis import RedisAway
from booking.platform.resources import read_text
from booking.queue.line import GateTold, set_gate, show_line
from booking.queue.restore import ConcertUnknown

CAPACITY_MAX = 1_000_000
RATE_PER_S_MAX = 100_000
MESSAGE_LENGTH_MAX = 200
CHANGES_SHOWN = 10
_DIGITS_MAX = 7
_NUMBER = re.compile(r"([0-9]{1,9}(\.[0-9]{1,30})?|\.[0-9]{1,30})(e[+-]?[0-9]{1,2})?", re.IGNORECASE)

_GATE = read_text(__package__, "sql/gate.sql")
_CHANGE_GATE = "select change_gate(:concert_id, :action, :value, :changed_by, :reason)"


class UnusableGateCommand(BadRequest):
    """The gate cannot be told that."""

    slug = "gate-command-unusable"


class DrawTooLate(Conflict):
    """The sale has opened, or this epoch of the line has let people in: it is too late for a draw."""

    slug = "draw-too-late"


@dataclass(frozen=True, slots=True)
class GateChange:
    """A change that is recorded. ``settings`` are all of the line's settings since then, without what is hidden."""

    settings: dict[str, Any]
    sale_opened: bool
    """Whether this change opened the sale, before its time."""
    in_force: bool
    """Whether the running line has it. Else there is none now, and it will begin with these settings; or Redis is away,
    and the background loop will tell it."""
    admitted: int
    """How many people were let in by the change."""
    held_s: int
    """For how many seconds nobody is let in, as people are waited for: after a loss or a silence of Redis, and when a
    draw's sale is opened before its time."""


def change_gate(concert_id: int, action: str, value: object = None, *, by: str, reason: str = "") -> GateChange:
    """Change one setting of a concert's gate (``ACTIONS``), as ``by`` asks for ``reason``.

    Raises UnusableGateCommand for what makes no sense, DrawTooLate, ConcertUnknown, DatabaseAway.
    """
    text = _checked(action, value)
    changed = primary().document(
        _CHANGE_GATE,
        safe_to_repeat=action != "restart",  # twice would be two epochs
        concert_id=concert_id,
        action=action,
        value=text,
        changed_by=_kept(by),
        reason=_kept(reason) or action,
    )
    if changed is None:
        raise ConcertUnknown(f"no concert {concert_id}")
    if "refused" in changed:
        raise DrawTooLate
    try:
        told = set_gate(concert_id, changed["settings"])
    except RedisAway:
        told = GateTold(in_force=False, admitted=0, held_s=0)
    shown = {name: value for name, value in changed["settings"].items() if name != "seed"}
    return GateChange(shown, changed["sale_opened"], told.in_force, told.admitted, told.held_s)


def show_gate(concert_id: int) -> dict[str, Any]:
    """What there is to know of a concert's gate: its settings and newest changes from Postgres, and as ``live`` the
    line as it stands in Redis (None: no line runs there, ``redis`` says whether Redis answers).

    Raises ConcertUnknown, DatabaseAway.
    """
    shown: dict[str, Any] | None = primary().document(_GATE, concert_id=concert_id, changes=CHANGES_SHOWN)
    if shown is None:
        raise ConcertUnknown(f"no concert {concert_id}")
    try:
        return shown | {"redis": "ok", "live": show_line(concert_id)}
    except RedisAway:
        return shown | {"redis": "away", "live": None}


def _kept(note: str) -> str:
    """A note as the history can keep it: a command given in an incident must not fail for a letter in its reason."""
    return note.encode(errors="replace").decode().replace("\0", " ")


def _capacity(value: object) -> str:
    text = _given(value, f"a whole number from 0 to {CAPACITY_MAX:,}")
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX and int(text) <= CAPACITY_MAX):
        raise ValueError(f"must be a whole number from 0 to {CAPACITY_MAX:,}, not {value!r}")
    return text


def _rate(value: object) -> str:
    text = _given(value, f"people a second from 0 to {RATE_PER_S_MAX:,}")
    if not _NUMBER.fullmatch(text) or not 0 <= (rate := Decimal(text)) <= RATE_PER_S_MAX:
        raise ValueError(f"must be people a second from 0 to {RATE_PER_S_MAX:,}, not {value!r}")
    rounded = round(rate, 3)
    if rate and not rounded:  # it would close the gate unnoticed
        raise ValueError(f"the slowest is 0.001 a second, or 0 for nobody, not {value!r}")
    return format(rounded, "f")


def _message(value: object) -> str:
    text = "" if value is None else value
    if isinstance(text, str) and len(text) <= MESSAGE_LENGTH_MAX and all(letter.isprintable() for letter in text):
        return text
    raise ValueError(f"must be one line of at most {MESSAGE_LENGTH_MAX} characters")


def _nothing(value: object) -> None:
    if value is not None:
        raise ValueError(f"takes no value, and {value!r} was given")


def _seed(value: object) -> str:
    _nothing(value)
    return secrets.token_hex(32)


def _given(value: object, what: str) -> str:
    if value is None:
        raise ValueError(f"needs a value, {what}")
    return str(value)


ACTIONS: dict[str, Callable[[object], str | None]] = {
    "capacity": _capacity,
    "rate": _rate,
    "pause": _nothing,
    "resume": _nothing,
    "message": _message,
    "open": _nothing,
    "close": _nothing,
    "restart": _nothing,
    "draw": _seed,
}
"""What may be done to a gate, and how the value of each is checked (ValueError says what is wrong with it)."""


def _checked(action: str, value: object) -> str | None:
    if action not in ACTIONS:
        raise UnusableGateCommand(f"a gate knows no {action!r}; it knows {', '.join(ACTIONS)}")
    try:
        return ACTIONS[action](value)
    except ValueError as unusable:
        raise UnusableGateCommand(f"{action}: {unusable}") from None
