"""The payment firms behind one small port.

What a gateway surely did and what nobody can know are different things, and the type says which: a timeout, a 5xx or a
cut connection is ``UNKNOWN`` (the money may be taken), ``NOT_SENT`` means that no byte of the request left us.
Every request carries the payment's id as the gateway's idempotency key: asking again never charges twice.
"""

import http.client
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from booking.platform.settings import settings
from booking.platform.telemetry import correlation_id, count

PRIMARY = "danal"


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

    def charge(self, charge: Charge) -> Outcome:
        """Ask for the money. Never raises: every fault is an outcome."""
        return self._outcome("POST", "/v1/payments", {field: getattr(charge, field) for field in charge.__slots__})

    def find(self, key: str) -> Outcome:
        """Ask what became of a charge. ``NEVER_SEEN`` when the gateway does not know the key."""
        return self._outcome("GET", f"/v1/payments/{quote(key, safe='')}")

    def cancel(self, key: str) -> Outcome:
        """Make sure that nothing is taken: refund a charge, or refuse one that may still be on its way."""
        return self._outcome("POST", f"/v1/payments/{quote(key, safe='')}/cancel", {})

    def _outcome(self, method: str, path: str, body: dict[str, Any] | None = None) -> Outcome:
        outcome = self._ask(method, path, body)
        count("GatewayRequests", gateway=self.name, outcome=outcome.value)
        return outcome

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Outcome:
        connection = http.client.HTTPConnection(
            self._address.hostname or "127.0.0.1", self._address.port, timeout=settings().gateway_connect_timeout_s
        )
        with closing(connection):
            try:
                connection.connect()
            except OSError:
                return Outcome.NOT_SENT
            try:
                connection.sock.settimeout(settings().gateway_read_timeout_s)
                headers = {"Content-Type": "application/json", "X-Correlation-Id": correlation_id()}
                connection.request(method, path, None if body is None else msgspec.json.encode(body), headers)
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException):
                return Outcome.UNKNOWN
        if response.status == 404:
            return Outcome.NEVER_SEEN
        if response.status not in (200, 201, 402):
            return Outcome.UNKNOWN
        return _read_outcome(text)


def _read_outcome(text: bytes) -> Outcome:
    try:
        status = msgspec.json.decode(text)["status"]
        return {
            "captured": Outcome.CAPTURED,
            "declined": Outcome.DECLINED,
            "cancelled": Outcome.CANCELLED,
            "refunded": Outcome.CANCELLED,
        }[status]
    except (msgspec.DecodeError, KeyError, TypeError):
        return Outcome.UNKNOWN


_gateways: dict[str, Gateway] = {}


def gateway(name: str) -> Gateway:
    """The gateway called ``name`` (danal, payco)."""
    if name not in _gateways:
        _gateways[name] = Gateway(name, {"danal": settings().danal_url, "payco": settings().payco_url}[name])
    return _gateways[name]
