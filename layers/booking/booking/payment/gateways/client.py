"""A payment firm's HTTP API.

Every request carries the payment's id as the gateway's idempotency key: asking again never charges twice.
"""

import http.client
import socket
import time
from contextlib import closing
from dataclasses import asdict
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import tenacity

from booking.payment.gateways.circuit import Circuit
from booking.payment.gateways.port import NO_ANSWER, Charge, Outcome
from booking.platform.settings import settings
from booking.platform.telemetry import correlation_id, count, logger

_ANSWER_BYTES_MAX = 64 * 1024
_PAUSE_FIRST_S_MAX, _PAUSE_S_MAX = 0.1, 1.0
_TRY_S_MIN = 0.3
"""A further try that has less time than this left would more likely end in doubt than in an answer."""


class Gateway:
    """A payment firm.

    Each request opens its own connection. A kept one that the firm has closed meanwhile looks like an unknown outcome,
    and a payment left in doubt costs a person far more than a handshake costs us.

    Charges and lookups (with cancellations) have a circuit each: a firm that cannot charge can mostly still say what it
    did, and that is just what is needed then. While a circuit is open nothing is sent and the outcome is ``NOT_SENT``.
    ``judged``: the outcome counts for the circuit. Who is in too much of a hurry for the firm's usual answer says no.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.charges = Circuit(name, "charges")
        self.lookups = Circuit(name, "lookups")
        self._address = urlsplit(url)

    def charge(
        self, charge: Charge, patience_s: float | None = None, *, tries: int = 1, judged: bool = True
    ) -> Outcome:
        """Ask for the money, at most ``tries`` times and always under the same key. Never raises: every fault is an
        outcome. ``patience_s``: have an answer within so long, all tries and pauses together; a decline is one."""
        patience_s = patience_s or settings().gateway_read_timeout_s
        return self.charges.guard(lambda: self._try_to_charge(charge, patience_s, tries), judged=judged)

    def find(self, key: str, patience_s: float | None = None, *, judged: bool = True) -> Outcome:
        """Ask what became of a charge. ``NEVER_SEEN`` when the gateway does not know the key. Never raises."""
        path = f"/v1/payments/{quote(key, safe='')}"
        return self.lookups.guard(lambda: self._outcome("GET", path, None, patience_s), judged=judged)

    def cancel(self, key: str, patience_s: float | None = None, *, judged: bool = True) -> Outcome:
        """Make sure that nothing is taken: refund a charge, or refuse one that may be on its way. Never raises."""
        path = f"/v1/payments/{quote(key, safe='')}/cancel"
        return self.lookups.guard(lambda: self._outcome("POST", path, {}, patience_s), judged=judged)

    def look(self) -> None:
        """See how the circuits stand, where that was not done lately, so that those who ask next need not."""
        self.charges.is_closed()
        self.lookups.is_closed()

    def _try_to_charge(self, charge: Charge, patience_s: float, tries: int) -> Outcome:
        deadline_s = time.monotonic() + patience_s
        outcomes: list[Outcome] = []

        def ask() -> Outcome:
            outcomes.append(self._outcome("POST", "/v1/payments", asdict(charge), deadline_s - time.monotonic()))
            return outcomes[-1]

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda outcome: outcome in NO_ANSWER),
            stop=tenacity.stop_after_attempt(tries) | tenacity.stop_before_delay(patience_s - _TRY_S_MIN),
            # Full jitter: those who met the same fault must not come back together.
            wait=tenacity.wait_random_exponential(multiplier=_PAUSE_FIRST_S_MAX, max=_PAUSE_S_MAX),
            retry_error_callback=lambda _: None,
        )
        retrying(ask)
        return last_word(outcomes)

    def _outcome(self, method: str, path: str, body: dict[str, Any] | None, patience_s: float | None) -> Outcome:
        longest_s = settings().gateway_read_timeout_s
        timeout_s = longest_s if patience_s is None else max(0.001, min(patience_s, longest_s))
        outcome = self._ask(method, path, body, timeout_s)
        count("GatewayRequests", gateway=self.name, outcome=outcome.value)
        if outcome in (Outcome.UNKNOWN, Outcome.NOT_SENT):
            key = (body or {}).get("key") or path
            logger().warning("payment firm gave no answer", gateway=self.name, outcome=outcome.value, payment=key)
        return outcome

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> Outcome:
        connection = http.client.HTTPConnection(
            self._address.hostname or "127.0.0.1",
            self._address.port,
            timeout=min(timeout_s, settings().gateway_connect_timeout_s),
        )
        deadline_s = time.monotonic() + timeout_s
        with closing(connection):
            try:
                connection.connect()
            except OSError:
                return Outcome.NOT_SENT
            try:
                connection.sock = _Hurried(connection.sock, max(0.001, deadline_s - time.monotonic()))
                headers = {"Content-Type": "application/json", "X-Correlation-Id": correlation_id()}
                connection.request(method, path, None if body is None else msgspec.json.encode(body), headers)
                response = connection.getresponse()
                text = response.read(_ANSWER_BYTES_MAX)
            except (OSError, http.client.HTTPException):
                return Outcome.UNKNOWN
        if response.status == 404:
            return Outcome.NEVER_SEEN
        if response.status not in (200, 201, 402):
            return Outcome.UNKNOWN
        return _read_outcome(text)


def last_word(outcomes: list[Outcome]) -> Outcome:
    """What several tries under one key come to. One that may have arrived is not undone by one that was not sent."""
    if outcomes[-1] is Outcome.NOT_SENT and Outcome.UNKNOWN in outcomes:
        return Outcome.UNKNOWN
    return outcomes[-1]


class _Hurried(socket.socket):
    """A connection for ``timeout_s`` from now on: a socket's own timeout starts anew with every byte it gets."""

    def __init__(self, connected: socket.socket, timeout_s: float) -> None:
        super().__init__(connected.family, connected.type, connected.proto, connected.detach())
        self._deadline_s = time.monotonic() + timeout_s
        self.settimeout(timeout_s)

    def recv_into(self, *into: Any) -> int:
        """As ever, but raises TimeoutError at the deadline."""
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer is not complete in time")
        self.settimeout(left_s)
        return super().recv_into(*into)


def _read_outcome(text: bytes) -> Outcome:
    try:
        return _OUTCOMES[_ANSWER.decode(text).status]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return Outcome.UNKNOWN


class _Answer(msgspec.Struct):
    status: str


_ANSWER = msgspec.json.Decoder(_Answer)

_OUTCOMES = {
    "captured": Outcome.CAPTURED,
    "declined": Outcome.DECLINED,
    "cancelled": Outcome.CANCELLED,
    "refunded": Outcome.CANCELLED,
}
