"""Consume reservation events: issue the ticket, tell the person, keep the sales counters. Each event acts once."""

import secrets
import uuid
from typing import Any

import msgspec
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from booking.platform.postgres import primary
from booking.platform.resources import read_text
from booking.platform.telemetry import count, logger, start_correlation
from booking.queue import end_turn, set_sold_out
from booking.seats import seats_changed

# Crockford's base 32: no letter that is read as a digit or spells a word.
_CODE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CODE_LENGTH = 12
_ERROR_LENGTH_MAX = 500

_APPLY = read_text(__package__, "sql/apply_reservation_event.sql")
_RECORD_FAILURE = read_text(__package__, "sql/record_failure.sql")

_OUTCOMES = {
    (True, False): ("EventsApplied", "event applied"),
    (False, False): ("EventsSeenBefore", "event seen before"),
    (False, True): ("EventsVoid", "event void: a failover has lost the commit that it tells of"),
}
"""How an event is counted and told, by whether it was applied and whether it is void."""

_processor = BatchProcessor(event_type=EventType.Kafka)


class Envelope(msgspec.Struct, frozen=True):
    """What every event carries; ``data`` is the event's own JSON, kept as text."""

    event_id: uuid.UUID
    type: str
    reservation_id: uuid.UUID
    seq: int
    occurred_at: str
    correlation_id: str
    data: msgspec.Raw


def consume(event: dict[str, Any], context: LambdaContext) -> Any:
    """Apply a batch in the shape of the MSK event source; answers which records failed and must come again."""
    return process_partial_response(event=event, record_handler=_apply, processor=_processor, context=context)


def _apply(record: KafkaEventRecord) -> None:
    envelope = msgspec.json.decode(record.decoded_value, type=Envelope)
    start_correlation(envelope.correlation_id)
    try:
        effect = primary().document(
            _APPLY,
            event_id=str(envelope.event_id),
            type=envelope.type,
            reservation_id=str(envelope.reservation_id),
            seq=envelope.seq,
            data=bytes(envelope.data).decode(),
            ticket_code="".join(secrets.choice(_CODE_ALPHABET) for _ in range(_CODE_LENGTH)),
        )
    except Exception as fault:
        _record_failure(envelope, fault)
        raise
    seats_changed(effect.get("changed"), said_before=True)
    if paid_by := effect.get("paid_by"):
        # Step 7 does the same at once; here nothing that dies in between leaves a buyer's place taken.
        end_turn(effect["concert_id"], paid_by["person"], paid_by["pass_id"], "paid")
    if effect.get("sold_out") is not None:
        set_sold_out(effect["concert_id"], effect["sold_out"])
    metric, words = _OUTCOMES[effect["applied"], effect.get("void", False)]
    count(metric, type=envelope.type)
    logger().info(
        words,
        **_named(envelope),
    )


def _record_failure(envelope: Envelope, fault: Exception) -> None:
    attempts = primary().value(
        _RECORD_FAILURE, event_id=str(envelope.event_id), error=repr(fault)[:_ERROR_LENGTH_MAX], safe_to_repeat=False
    )
    logger().exception(
        "event failed",
        attempts=attempts,
        **_named(envelope),
    )


def _named(envelope: Envelope) -> dict[str, Any]:
    """How a line of the log names the event: with the fields of the relay's lines, which scripts/logs follows."""
    return {
        "type": envelope.type,
        "event_id": str(envelope.event_id),
        "reservation_id": str(envelope.reservation_id),
        "correlation_id": envelope.correlation_id,
    }
