"""What all consumers of reservation events have in common: a batch in one transaction, and records that fail.

The whole batch is one SQL call. When that fails it is tried in halves until the record that spoils it stands alone, so
the others take effect, each once: what a record does and its inbox row are one transaction. A record that failed comes
again, and with it all behind it in its partition; those have been seen before. After ``event_attempts_max`` attempts it
becomes a dead letter and counts as done, so that its partition goes on.

A database that is away is no fault of a record: nothing is counted, and everything comes again. A record that kills the
function is found by the batches that never ended (``unended``): its partition's records are then tried one by one, and
the one that does not end either has failed.
"""

import base64
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from pg8000.exceptions import DatabaseError

from booking.events import unended
from booking.platform.postgres import DatabaseAway, primary
from booking.platform.postgres_hosts import sqlstate
from booking.platform.problems import Unavailable
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import count, logger, logs_info, measure

REDRIVEN_FOR, REDRIVEN_ID = "redriven_for", "redriven_id"
"""Headers of a record that was sent once more: the consumer that failed it, and its id in that consumer's inbox."""

_ERROR_LENGTH_MAX = 500
_BATCH_S_MAX = 40.0
"""Well within the functions' time limit: what is left of a batch that failed over and over comes again."""
_TRANSIENT_CLASSES = ("23", "40", "53", "55", "57", "58")
"""Of SQLSTATE: constraints (what it needs may come), conflicts, resources, objects in use, operators, the system."""

_FAIL = read_text(__package__, "sql/fail_event.sql")

_OUTCOMES = {
    "applied": ("EventsApplied", "event applied"),
    "seen": ("EventsSeenBefore", "event seen before"),
    "void": ("EventsVoid", "event void: a failover has lost the commit that it tells of"),
}
"""How an event is counted and told, by its outcome (take_events.sql)."""


class Envelope(msgspec.Struct, frozen=True):
    """What every event carries; ``data`` is the event's own JSON, kept as text."""

    event_id: uuid.UUID
    type: str
    reservation_id: uuid.UUID
    seq: int
    occurred_at: str
    correlation_id: str
    data: msgspec.Raw


_ENVELOPE = msgspec.json.Decoder(Envelope)


class OutOfTime(Unavailable):
    """The batch took too long; what is left of it comes again."""

    slug = "batch-out-of-time"


class EventFailed(Exception):
    """Why a record has to come again, in words: the fault itself brings all that it was raised in, at every attempt."""


class FunctionKilled(Exception):
    """The function was killed while it had this record alone."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A record of the batch: its place there, what Kafka gave, and the event unless it could not be read."""

    place: int
    record: KafkaEventRecord
    envelope: Envelope | None

    def event_id(self) -> str:
        """By which the inbox knows it: what is no event is known by where it stood first."""
        if self.envelope:
            return str(self.envelope.event_id)
        with suppress(ValueError):
            return str(uuid.UUID((_header(self.record, REDRIVEN_ID) or b"").decode()))
        position = f"{self.record.topic}/{self.record.partition}/{self.record.offset}"
        return str(uuid.uuid5(uuid.NAMESPACE_URL, position))

    def correlation_id(self) -> str:
        if self.envelope:
            return self.envelope.correlation_id
        return (_header(self.record, "correlation_id") or b"-").decode(errors="replace")


class Consumer:
    """One consumer with its rows in the inbox. ``consume`` is the function's handler."""

    def __init__(
        self,
        name: str,
        apply_sql: str,
        tell: Callable[[Mapping[str, Any]], None],
        add: Callable[[Envelope], dict[str, Any]] = lambda _: {},
    ) -> None:
        """``apply_sql`` applies ``:events`` (JSON, see take_events.sql) in one transaction; its answer, JSON with
        ``outcomes`` ({event_id: outcome}), is given to ``tell`` after the commit: for Redis, and never to raise.
        ``add``: what an event brings along for the SQL."""
        self._name = name
        self._apply_sql = apply_sql
        self._tell = tell
        self._add = add

    def consume(self, event: dict[str, Any], context: LambdaContext) -> Any:
        """Apply a batch in the shape of the MSK event source; answers which records failed and must come again.

        Raises Powertools' BatchProcessingError when all of them did.
        """
        processor = _WholeBatch(event_type=EventType.Kafka)
        return process_partial_response(event=event, record_handler=self._handle, processor=processor, context=context)

    def _handle(self, records: Sequence[KafkaEventRecord]) -> list[Exception | None]:
        """For each record why it has to come again, None if it is done."""
        until_s = time.monotonic() + _BATCH_S_MAX
        starts = unended.starts_of(records)
        deadly = unended.begin(self._name, starts)
        faults: list[Exception | None] = [None] * len(records)
        readable: list[Taken] = []
        suspects: list[Taken] = []
        for place, record in enumerate(records):
            if (_header(record, REDRIVEN_FOR) or self._name.encode()) != self._name.encode():
                continue
            try:
                envelope = _ENVELOPE.decode(base64.b64decode(record["value"] or ""))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
                faults[place] = self._fail(Taken(place, record, None), fault)
            else:
                taken = Taken(place, record, envelope)
                (suspects if unended.partition_of(record) in deadly else readable).append(taken)
        for taken, failure in self._apply(readable, until_s):
            faults[taken.place] = self._fail(taken, failure)
        for taken in suspects:
            faults[taken.place] = self._try_alone(taken, until_s)
        unended.end(self._name, starts.values())  # not where this is killed, or ends with an error that nobody expects
        return faults

    def _try_alone(self, taken: Taken, until_s: float) -> Exception | None:
        """Apply one of a batch that killed the function; it has failed where it was begun alone before and never ended.

        Answers why it has to come again, None if it is done or set aside.
        """
        if time.monotonic() > until_s:
            return OutOfTime()
        alone = unended.alone(taken.record)
        if unended.begin(self._name, alone, ends_missing_max=1):
            killed = FunctionKilled("out of memory, out of time, or a crash: its log says which")
            if self._fail(taken, killed) is None:
                unended.end(self._name, alone.values())
                return None
        fault = next((self._fail(taken, failure) for _, failure in self._apply([taken], until_s)), None)
        unended.end(self._name, alone.values())
        return fault

    def _tell_set_aside(self, noted: Mapping[str, Any], fault: Exception, taken: Taken) -> None:
        """Unless it was not set aside just now: somebody has discarded it, or it was applied meanwhile."""
        if noted["attempts"]:
            logger().error("event set aside", reason=_words_of(fault), consumer=self._name, **noted, **_named(taken))
            count("DeadLettersArrived", consumer=self._name)

    def _apply(self, batch: Sequence[Taken], until_s: float) -> Iterator[tuple[Taken, Exception]]:
        """Apply what can be applied; yields the records that cannot, and why."""
        if not batch:
            return
        try:
            if time.monotonic() > until_s:
                raise OutOfTime()
            effect = primary().document(self._apply_sql, events=self._events(batch))
        except (DatabaseAway, OutOfTime) as away:
            yield from ((taken, away) for taken in batch)
        except Exception as fault:
            if len(batch) == 1:
                yield batch[0], fault
                return
            logger().warning("batch failed, tried in halves", consumer=self._name, size=len(batch), reason=repr(fault))
            half = len(batch) // 2
            yield from self._apply(batch[:half], until_s)
            yield from self._apply(batch[half:], until_s)
        else:
            self._tell(effect)
            self._log(batch, effect["outcomes"])

    def _events(self, batch: Sequence[Taken]) -> str:
        """The batch as the SQL takes it. ``data`` stays the text that it was."""
        events = [
            {
                "event_id": event.event_id,
                "type": event.type,
                "reservation_id": event.reservation_id,
                "seq": event.seq,
                "data": event.data,
                **self._add(event),
            }
            for event in (taken.envelope for taken in batch)
            if event
        ]
        return msgspec.json.encode(events).decode()

    def _fail(self, taken: Taken, fault: Exception) -> Exception | None:
        """Count the attempt: None when the record has been set aside, else the fault with which it comes again."""
        named = {"consumer": self._name, **_named(taken)}
        if isinstance(fault, (DatabaseAway, OutOfTime)):
            logger().warning("event put off", reason=fault.slug, **named)
            return fault
        error = _storable(_words_of(fault))[:_ERROR_LENGTH_MAX]
        try:
            noted = self._note_failure(taken, error, transient=is_transient(fault))
        except Exception as unnoted:
            logger().warning("event failed and could not be counted", error=error, reason=repr(unnoted), **named)
            return fault
        logger().error("event failed", error=error, **noted, **named)
        if not noted["set_aside"]:
            return EventFailed(error)
        self._tell_set_aside(noted, fault, taken)
        return None

    def _note_failure(self, taken: Taken, error: str, *, transient: bool) -> dict[str, Any]:
        record, envelope = taken.record, taken.envelope
        value = None if record["value"] is None else base64.b64decode(record["value"])
        about = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "type": _storable(envelope.type) if envelope else None,
            "reservation_id": envelope.reservation_id if envelope else None,
            "correlation_id": _storable(taken.correlation_id()),
        }
        noted: dict[str, Any] = primary().document(
            _FAIL,
            consumer=self._name,
            event_id=taken.event_id(),
            error=error,
            transient=transient,
            attempts_max=settings().event_attempts_max,
            record=msgspec.json.encode(about).decode(),
            key=record.decoded_key,
            value=value,
            dead_letter_topic=settings().dead_letter_topic,
            safe_to_repeat=False,
        )
        return noted

    def _log(self, batch: Sequence[Taken], outcomes: Mapping[str, str]) -> None:
        counted = Counter((outcomes[taken.event_id()], taken.envelope.type) for taken in batch if taken.envelope)
        for (outcome, kind), number in counted.items():
            measure(_OUTCOMES[outcome][0], number, MetricUnit.Count, type=kind, consumer=self._name)
        if not logs_info():
            return
        for taken in batch:
            logger().info(_OUTCOMES[outcomes[taken.event_id()]][1], consumer=self._name, **_named(taken))


def _header(record: KafkaEventRecord, name: str) -> bytes | None:
    """A header's value; None where there is none, or one without value.

    Not the record's ``decoded_headers``: they decode all, and anybody's null among them would fail the whole batch.
    """
    values = (each[name] for each in record.headers if each.get(name))
    return next((bytes(byte & 0xFF for byte in value) for value in values), None)  # of Java, so 255 comes as -1


def is_transient(fault: Exception) -> bool:
    """Whether a record that failed with this may take effect when it is tried again later, as it stands."""
    if isinstance(fault, DatabaseError):
        return str(sqlstate(fault))[:2] in _TRANSIENT_CLASSES
    return isinstance(fault, (Unavailable, OSError, FunctionKilled))


def _words_of(fault: Exception) -> str:
    """The fault in a line: of the database's the message and where it was raised, not the statement and its plan."""
    if isinstance(fault, DatabaseError) and fault.args and isinstance(fault.args[0], dict):
        told = fault.args[0]
        where = str(told.get("W", "")).partition("\n")[0]
        return f"{type(fault).__name__} {sqlstate(fault)}: {told.get('M', '')}" + (f" ({where})" if where else "")
    return repr(fault)


def _storable(text: str) -> str:
    """Without what Postgres takes for no text."""
    return text.replace("\0", "")


def _named(taken: Taken) -> dict[str, Any]:
    """How a line of the log names the event: with the fields of the relay's lines, which scripts/logs follows."""
    envelope = taken.envelope
    return {
        "type": envelope.type if envelope else "unreadable",
        "event_id": taken.event_id(),
        "reservation_id": str(envelope.reservation_id) if envelope else None,
        "correlation_id": taken.correlation_id(),
    }


class _WholeBatch(BatchProcessor):
    """Powertools' processor, which gives the handler all records at once instead of one after another."""

    def process(self) -> list[tuple[Any, ...]]:
        records = [self._to_batch_type(record, event_type=self.event_type) for record in self.records]
        return [
            self.success_handler(record, None)
            if fault is None
            else self.failure_handler(record, (type(fault), fault, fault.__traceback__))
            for record, fault in zip(records, self.handler(records), strict=True)
        ]
