"""The wire format between an MSK event-source mapping and its function: the event and the partial batch response."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Record(Protocol):
    """The fields of aiokafka's ConsumerRecord that an event carries."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class BadResponse(Exception):
    """The function answered something that is no partial batch response; Lambda retries the whole batch then."""


def partition_name(topic: str, partition: int) -> str:
    return f"{topic}-{partition}"


def event_of(batch: Sequence[Sequence[Record]], arn: str, bootstrap_servers: str) -> dict[str, Any]:
    """The event for slices of partitions, each slice in offset order and not empty."""
    return {
        "eventSource": "aws:kafka",
        "eventSourceArn": arn,
        "bootstrapServers": bootstrap_servers,
        "records": {
            partition_name(records[0].topic, records[0].partition): [_record(record) for record in records]
            for records in batch
        },
    }


def _record(record: Record) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "timestampType": "LOG_APPEND_TIME" if record.timestamp_type == 1 else "CREATE_TIME",
        "key": _base64(record.key),
        "value": _base64(record.value),
        "headers": [{name: _java_bytes(value)} for name, value in record.headers],
    }


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")


def _java_bytes(data: bytes | None) -> list[int]:
    """Header values come as Java's signed bytes: 255 is -1."""
    return [byte - 256 if byte > 127 else byte for byte in data or b""]


def size_of(record: Record) -> int:
    """About how many bytes of JSON this record adds to an event."""
    headers = sum(len(name) + 5 * len(value or b"") for name, value in record.headers)
    return 250 + 2 * len(record.topic) + headers + (len(record.key or b"") + len(record.value or b"")) * 4 // 3


def first_failures(response: Any, batch: Sequence[Sequence[Record]]) -> Mapping[str, int]:
    """Of each partition with failed records, by its name, the lowest failed offset.

    Follows Lambda's rules: no list, or an empty one, means that all succeeded; an identifier that names no record of
    this batch makes the whole batch fail. Raises BadResponse for that.
    """
    if not response:
        return {}
    failures = response.get("batchItemFailures") if isinstance(response, dict) else None
    if not failures:
        return {}
    offsets = {partition_name(r[0].topic, r[0].partition): {record.offset for record in r} for r in batch}
    firsts: dict[str, int] = {}
    for failure in failures if isinstance(failures, list) else [failures]:
        partition, offset = _identifier(failure)
        if offset not in offsets.get(partition, ()):
            raise BadResponse(f"itemIdentifier names no record of the batch: {failure!r:.200}")
        firsts[partition] = min(offset, firsts.get(partition, offset))
    return firsts


def _identifier(failure: Any) -> tuple[str, int]:
    """{"itemIdentifier": {"partition": "<topic>-<partition>", "offset": 15}}"""
    try:
        identifier = failure["itemIdentifier"]
        return str(identifier["partition"]), int(identifier["offset"])
    except (TypeError, KeyError, ValueError) as e:
        raise BadResponse(f"no partial batch response: {failure!r:.200}") from e
