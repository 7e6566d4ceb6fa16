"""Batches that were begun and not ended: the function was killed meanwhile, and with it whoever counts its attempts.

A batch is noted in Redis when it begins and forgotten when it ends, whatever came of it, by where each partition's part
of it starts: there it starts again. While Redis is away nothing is noted, and such a record holds up its partition.
"""

from collections.abc import Collection, Iterable

from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord
from redis.exceptions import RedisError

from booking.platform.redis import Script, packed_command, redis
from booking.platform.redis_keys import unended_key
from booking.platform.resources import read_text
from booking.platform.telemetry import logger

_ENDS_MISSING_MAX = 2
"""An environment may be taken from a batch that does it no harm; three times in the same place it was the batch."""
_KEPT_S = 24 * 3_600
_BEGIN = Script(read_text(__package__, "lua/begin_batch.lua"))


def partition_of(record: KafkaEventRecord) -> str:
    """The record's partition, by a name that no other topic's has."""
    return f"{record.topic}-{record.partition}"


def starts_of(records: Iterable[KafkaEventRecord]) -> dict[str, str]:
    """Of each partition in a batch, where its part starts. Within a partition records come in their order."""
    starts: dict[str, str] = {}
    for record in records:
        starts.setdefault(partition_of(record), f"{partition_of(record)}/{record.offset}")
    return starts


def alone(record: KafkaEventRecord) -> dict[str, str]:
    """The same of a record that is tried by itself, whatever batch it is in."""
    return {partition_of(record): f"{partition_of(record)}/{record.offset} alone"}


def begin(consumer: str, starts: dict[str, str], *, ends_missing_max: int | None = None) -> set[str]:
    """Note that the batch begins; the partitions whose part was begun over and over and never ended."""
    if not starts:
        return set()
    try:
        times = _BEGIN(redis("cache"), [unended_key(consumer)], [_KEPT_S, *starts.values()])
    except RedisError as fault:
        logger().warning("batch begins unnoted", consumer=consumer, reason=repr(fault))
        return set()
    most = _ENDS_MISSING_MAX if ends_missing_max is None else ends_missing_max
    return {name for name, begun in zip(starts, times, strict=True) if begun > most}


def end(consumer: str, starts: Collection[str]) -> None:
    """Note that the batch has ended."""
    if not starts:
        return
    key = unended_key(consumer)
    try:
        redis("cache").execute_packed(key, packed_command("HDEL", key, *starts))
    except RedisError as fault:
        logger().warning("batch ends unnoted", consumer=consumer, reason=repr(fault))
