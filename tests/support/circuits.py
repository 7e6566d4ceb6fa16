"""Circuits as a new environment finds them: nothing is known of a payment firm that was away in another test."""

from contextlib import suppress

from aws_lambda_powertools.utilities.circuit_breaker import base
from redis.exceptions import RedisError

from booking.payment.gateways.circuit_store import STORE
from booking.platform.redis import redis
from booking.platform.redis_keys import circuit_key

CIRCUITS = [circuit_key(gateway, operation) for gateway in ("danal", "payco") for operation in ("charges", "lookups")]


def forget_circuits() -> None:
    """In Redis, unless the test has taken it away, and in this process."""
    with suppress(RedisError):
        for key in CIRCUITS:
            redis("cache").delete(key)
    forget_here()


def forget_here() -> None:
    """In this process alone: it knows what Redis says, as soon as it asks."""
    STORE.forget()
    base._LOCAL_FAILURES.clear()
    base._LOCAL_SUCCESSES.clear()
    base._LAST_OBSERVED_STATE.clear()


def probe_is_due(key: str) -> None:
    """As when the circuit has been open for long enough: for all environments."""
    redis("cache").hset(key, "probe_from", 0)
    forget_here()
