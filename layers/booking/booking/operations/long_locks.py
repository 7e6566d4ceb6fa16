"""Long locks: a transaction that sits on seats is found, ended and recorded.

No transaction of Encore's own outlives ``statement_timeout_ms``, and who waits for one gives up after
``lock_timeout_ms`` with a 503. What sits there longer is a person's session, a tool, or a process that hangs, and
nobody buys these seats meanwhile.
"""

from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from booking.platform.postgres import primary
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import logger, measure

LEFT_ALONE = ("encore-migrate", "encore-seed", "encore-maintenance")
"""Names of applications (``application_name``, PGAPPNAME) whose sessions the job never ends: deployments, loading, and
whoever has to lock for longer and says so."""

_JOB = "every_minute_end_long_locks"
_FIND = read_text(__package__, "sql/long_locks.sql")
_NOTE_OVER = read_text(__package__, "sql/long_locks_over.sql")
_RECORD = read_text(__package__, "sql/long_lock_record.sql")
_HOLDERS = "select coalesce(json_agg(h), '[]')::text from lock_holders(0) h"
_END = "select end_lock_holder(cast(:pid as integer), cast(:started_at as timestamptz), :ended_by)::text"


class NoLockHolder(LookupError):
    """This session holds no locks of the sale (any more)."""


def end_long_locks() -> int:
    """The job's work: end who has held locks for longer than ``long_lock_s_max``; returns how many.

    Each is recorded, logged and counted once, also where it may not be ended. Raises DatabaseAway, DatabaseBusy.
    """
    found = primary().document(_FIND, older_than_s=settings().long_lock_s_max, left_alone=list(LEFT_ALONE))
    ended = 0
    for holder in found:
        record = _end(holder, _JOB)
        if record is not None:
            ended += record["fault"] is None
            _tell(record)
    primary().rows(_NOTE_OVER)
    return ended


def lock_holders() -> list[dict[str, Any]]:
    """The transactions that hold locks of the sale now, oldest first, as the SQL function of this name shows them."""
    holders: list[dict[str, Any]] = primary().document(_HOLDERS)
    return holders


def long_lock_record(limit: int) -> list[dict[str, Any]]:
    """The newest records, newest first: the columns of ``long_lock`` and ``held_s``."""
    records: list[dict[str, Any]] = primary().document(_RECORD, limit=limit)
    return records


def end_lock_holder(pid: int, ended_by: str) -> dict[str, Any]:
    """End the session ``pid`` because somebody says so, however long it has held its locks; its record.

    The record's ``fault`` says why the session is still there. Raises NoLockHolder.
    """
    for holder in lock_holders():
        if holder["pid"] == pid and (record := _end(holder, ended_by)):
            _tell(record)
            return record
    raise NoLockHolder(f"session {pid} holds no locks of the sale (any more)")


def _end(holder: dict[str, Any], ended_by: str) -> dict[str, Any] | None:
    # Safe to repeat: a session is ended once, and its transaction has one record.
    record: dict[str, Any] | None = primary().document(
        _END, pid=holder["pid"], started_at=holder["started_at"], ended_by=ended_by
    )
    return record


def _tell(record: dict[str, Any]) -> None:
    """Once for each transaction, and once more when it could be ended after all."""
    if record["fault"] is None:
        logger().warning("long lock ended", extra={"long_lock": record})
    elif record["is_new"]:
        logger().error("long lock cannot be ended", extra={"long_lock": record})
    else:
        return
    outcome = "ended" if record["fault"] is None else "not_ended"
    measure("LongLock", record["held_s"], MetricUnit.Seconds, outcome=outcome)
