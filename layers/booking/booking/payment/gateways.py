"""The payment firms behind one small port.

What a gateway surely did and what nobody can know are different things, and the type says which: a timeout, a 5xx or a
cut connection is ``UNKNOWN`` (the money may be taken), ``NOT_SENT`` means that no byte of the request left us.
Every request carries the payment's id as the gateway's idempotency key: asking again never charges twice.
"""

import http.client
import math
import socket
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from booking.platform.settings import settings
from booking.platform.telemetry import correlation_id, count

PRIMARY = "danal"
_ANSWER_BYTES_MAX = 64 * 1024


class Outcome(Enum):
    """What became of a payment at its gateway."""

    CAPTURED = "captured"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    """Nothing is taken (any charge went back in full) and nothing can be taken under this key any more."""
    NEVER_SEEN = "never-seen"
    NOT_SENT = "not-sent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Charge:
    """One charge as a gateway is asked for it; ``amount`` in the currency's smallest unit."""

    key: str
    order_id: str
    amount: int
    currency: str
    method: str


class Gateway:
    """A payment firm's HTTP API.

    Each request opens its own connection. A kept one that the firm has closed meanwhile looks like an unknown outcome,
    and a payment left in doubt costs a person far more than a handshake costs us.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._address = urlsplit(url)

    def charge(self, charge: Charge, patience_s: float | None = None) -> Outcome:
        """Ask for the money. Never raises: every fault is an outcome. ``patience_s``: wait no longer for the answer."""
        return self._outcome("POST", "/v1/payments", asdict(charge), patience_s)

    def find(self, key: str, patience_s: float | None = None) -> Outcome:
        """Ask what became of a charge. ``NEVER_SEEN`` when the gateway does not know the key. Never raises."""
        return self._outcome("GET", f"/v1/payments/{quote(key, safe='')}", None, patience_s)

    def cancel(self, key: str, patience_s: float | None = None) -> Outcome:
        """Make sure that nothing is taken: refund a charge, or refuse one that may be on its way. Never raises."""
        return self._outcome("POST", f"/v1/payments/{quote(key, safe='')}/cancel", {}, patience_s)

    def _outcome(self, method: str, path: str, body: dict[str, Any] | None, patience_s: float | None) -> Outcome:
        timeout_s = min(patience_s or math.inf, settings().gateway_read_timeout_s)
        outcome = self._ask(method, path, body, timeout_s)
        count("GatewayRequests", gateway=self.name, outcome=outcome.value)
        return outcome

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> Outcome:
        connection = http.client.HTTPConnection(
            self._address.hostname or "127.0.0.1",
            self._address.port,
            timeout=min(timeout_s, settings().gateway_connect_timeout_s),
        )
        with closing(connection):
            try:
                connection.connect()
            except OSError:
                return Outcome.NOT_SENT
            try:
                connection.sock = _Hurried(connection.sock, timeout_s)
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
        return _OUTCOMES[msgspec.json.decode(text, type=_Answer).status]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return Outcome.UNKNOWN


class _Answer(msgspec.Struct):
    status: str


_OUTCOMES = {
    "captured": Outcome.CAPTURED,
    "declined": Outcome.DECLINED,
    "cancelled": Outcome.CANCELLED,
    "refunded": Outcome.CANCELLED,
}
_gateways: dict[str, Gateway] = {}


def gateway(name: str) -> Gateway:
    """The gateway called ``name`` (danal, payco)."""
    if name not in _gateways:
        _gateways[name] = Gateway(name, {"danal": settings().danal_url, "payco": settings().payco_url}[name])
    return _gateways[name]
