"""Dead letters: what kept failing at a consumer and was set aside. Look, send back, give up; and the job that sends
back what was only a matter of time.

A dead letter is sent back to the topic that it came from, as it stood, for the consumer that failed it. One that fails
again waits again, its attempts counted on. That it is sent back twice does no harm: an event acts once.
"""

import base64
from collections.abc import Sequence
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from booking.platform.postgres import Queries, primary
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import logger, measure

STATES = ("waiting", "redriven", "discarded")

_LIST = read_text(__package__, "sql/dead_letters.sql")
_RECORD = read_text(__package__, "sql/dead_letter_record.sql")
_REDRIVE = read_text(__package__, "sql/redrive_dead_letters.sql")
_DISCARD = read_text(__package__, "sql/discard_dead_letter.sql")
_COUNT = read_text(__package__, "sql/count_dead_letters.sql")


class NoDeadLetter(LookupError):
    """There is no such dead letter."""


def list_dead_letters(state: str | None, limit: int) -> list[dict[str, Any]]:
    """The newest of a state (None: of all), the newest last; columns as in dead_letters.sql. Raises DatabaseAway."""
    found: list[dict[str, Any]] = primary().document(_LIST, state=state, id=None, limit=limit)
    return found


def find_dead_letter(letter_id: int) -> dict[str, Any]:
    """One, with its record's ``key`` and ``value`` in base64 (null where Kafka had none).

    Raises NoDeadLetter, DatabaseAway.
    """
    found = primary().document(_LIST, state=None, id=letter_id, limit=1)
    if not found:
        raise NoDeadLetter(f"there is no dead letter {letter_id}")
    [[key, value]] = primary().rows(_RECORD, id=letter_id)
    shown: dict[str, Any] = found[0] | {"key": _base64(key), "value": _base64(value)}
    return shown


def redrive(letter_ids: Sequence[int] | None, limit: int) -> list[int]:
    """Send these (None: all) back if they wait, the oldest first, at most ``limit``; the ids of those that were.

    Raises DatabaseAway.
    """
    ids = None if letter_ids is None else list(letter_ids)
    return _redriven(ids=ids, limit=limit, backoff_s=None, redrives_max=None)


def discard(letter_id: int, reason: str, discarded_by: str) -> None:
    """Give one up: its record never takes effect at its consumer. Raises NoDeadLetter, DatabaseAway."""
    if not primary().value(_DISCARD, id=letter_id, reason=reason, discarded_by=discarded_by):
        raise NoDeadLetter(f"there is no dead letter {letter_id} that could be discarded")


def redrive_transient() -> int:
    """The job's work: send back what is transient and due, and measure how many are in each state; returns how many.

    ``dead_letter_redrive_backoff_s`` after it was set aside for the first time, then twice as long each time, and no
    more than ``dead_letter_redrives_max`` times. Raises DatabaseAway, DatabaseBusy.
    """
    limits = settings()
    ids = _redriven(
        ids=None,
        limit=limits.dead_letters_per_redrive,
        backoff_s=limits.dead_letter_redrive_backoff_s,
        redrives_max=limits.dead_letter_redrives_max,
    )
    if ids:
        logger().info("dead letters sent back", ids=ids)
        measure("DeadLettersRedriven", len(ids), MetricUnit.Count)
    numbers = count_dead_letters(primary())
    for state in STATES:
        measure("DeadLetters", numbers.get(state, 0), MetricUnit.Count, state=state)
    return len(ids)


def count_dead_letters(server: Queries) -> dict[str, int]:
    """How many there are in each state; a state without any is left out. Raises DatabaseAway."""
    return {str(state): int(count) for state, count in server.rows(_COUNT)}


def _redriven(**chosen: Any) -> list[int]:
    return [row[0] for row in primary().rows(_REDRIVE, safe_to_repeat=False, **chosen)]


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
