"""The parts of the local stack, in the order in which they are listed."""

from encore_stack.instance import BROKERS, POSTGRES_SERVERS, REDIS_PARTS, SENTINELS
from encore_stack.parts.base import Part, PartError, Unhealthy
from encore_stack.parts.kafka import Kafka
from encore_stack.parts.localstack import LocalStack
from encore_stack.parts.postgres import PostgresServer
from encore_stack.parts.redis import RedisServer, Sentinel
from encore_stack.parts.simple import FastGateway, PaymentGateway, Poller

PARTS: tuple[Part, ...] = (
    *map(PostgresServer, POSTGRES_SERVERS),
    *(RedisServer(name) for name in REDIS_PARTS if name not in SENTINELS),
    *map(Sentinel, SENTINELS),
    *map(Kafka, BROKERS),
    PaymentGateway("danal"),
    PaymentGateway("payco"),
    LocalStack(),
    Poller(),
    FastGateway(),
)

PART_NAMES = tuple(part.name for part in PARTS)


def part_named(name: str) -> Part:
    """Raises KeyError for a name that no part has."""
    return next(part for part in PARTS if part.name == name) if name in PART_NAMES else _unknown(name)


def with_needs(names: list[str]) -> list[str]:
    """The named parts, those they need and those that come along, in listing order. Raises KeyError."""
    wanted: set[str] = set()
    pending = list(names)
    while pending:
        part = part_named(pending.pop())
        if part.name not in wanted:
            wanted.add(part.name)
            pending.extend([*part.needs, *part.peers])
    return [name for name in PART_NAMES if name in wanted]


def _unknown(name: str) -> Part:
    raise KeyError(name)


__all__ = ["PARTS", "PART_NAMES", "Part", "PartError", "Unhealthy", "part_named", "with_needs"]
