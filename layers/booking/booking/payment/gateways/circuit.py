"""A circuit breaker around what a firm is asked: after some failures in a row it is left in peace for a while, then one
request in all environments tries whether it is back.

The state machine is Powertools'; what it shares with the other environments is kept in ``circuit_store``. Failures are
counted in each environment by itself, so that a firm that is well costs no trip; the one that counts to the end opens
the circuit for all.
"""

from collections.abc import Callable
from typing import Any, Literal, cast

from aws_lambda_powertools.utilities.circuit_breaker import (
    CircuitBreakerConfig,
    CircuitBreakerOpenError,
    CircuitTransition,
    circuit_breaker,
)

from booking.payment.gateways.circuit_store import STORE
from booking.payment.gateways.port import NO_ANSWER, Outcome
from booking.platform.redis_keys import circuit_key
from booking.platform.settings import settings
from booking.platform.telemetry import count, logger

Operation = Literal["charges", "lookups"]


class Circuit:
    """The breaker of one operation of one firm."""

    def __init__(self, gateway: str, operation: Operation) -> None:
        self.gateway, self.operation = gateway, operation
        self._key = circuit_key(gateway, operation)

    def guard(self, ask: Callable[[], Outcome], *, judged: bool = True) -> Outcome:
        """What ``ask`` answers, or ``NOT_SENT`` while the circuit is open. Not judged: it neither counts nor probes."""
        if not judged:
            return self._refused() if not self.is_closed() else ask()
        protect = circuit_breaker(
            name=self._key,
            persistence_store=cast(Any, STORE),
            config=_config(),
            on_transition=self._tell_change,
        )
        try:
            return cast(Outcome, protect(_raising(ask))())
        except _NoAnswer as failed:
            return failed.outcome
        except CircuitBreakerOpenError:
            return self._refused()

    def is_closed(self) -> bool:
        """Whether the firm is taken to be well. May be as old as ``circuit_read_every_s``, as what ``refuses`` says."""
        return STORE.seen(self._key).is_closed

    def refuses(self) -> bool:
        """Whether a charge would be refused just now: the circuit is open and it is not time for a probe."""
        seen = STORE.seen(self._key)
        return not seen.is_closed and not seen.may_be_probed()

    def _refused(self) -> Outcome:
        count("GatewayCircuitRefusals", gateway=self.gateway, operation=self.operation)
        return Outcome.NOT_SENT

    def _tell_change(self, change: CircuitTransition) -> None:
        count("GatewayCircuitChanges", gateway=self.gateway, operation=self.operation, to=change.to_state.value)
        logger().warning("gateway circuit", gateway=self.gateway, operation=self.operation, state=change.to_state.value)


class _NoAnswer(Exception):
    """How the breaker is told of a failure: it knows exceptions only."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


def _raising(ask: Callable[[], Outcome]) -> Callable[[], Outcome]:
    def asked() -> Outcome:
        outcome = ask()
        if outcome in NO_ANSWER:
            raise _NoAnswer(outcome)
        return outcome

    return asked


def _config() -> CircuitBreakerConfig:
    return CircuitBreakerConfig(
        failure_threshold=settings().circuit_failures_max,
        recovery_timeout=settings().circuit_open_s,
        success_threshold=1,
        handled_exceptions=_NoAnswer,
    )
