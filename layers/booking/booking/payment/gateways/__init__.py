"""The payment firms: one small port, an HTTP client behind it, and a circuit breaker that all environments share."""

from booking.payment.gateways.client import Gateway
from booking.payment.gateways.firms import FALLBACK, PRIMARY, choose, gateway, gateways, other_than
from booking.payment.gateways.port import SURE, Charge, Outcome

__all__ = [
    "FALLBACK",
    "PRIMARY",
    "SURE",
    "Charge",
    "Gateway",
    "Outcome",
    "choose",
    "gateway",
    "gateways",
    "other_than",
]
