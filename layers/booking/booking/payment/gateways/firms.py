"""The two firms, and which of them a new payment is begun at."""

from booking.payment.gateways.client import Gateway
from booking.platform.settings import settings

PRIMARY, FALLBACK = "danal", "payco"

_gateways: dict[str, Gateway] = {}


def gateway(name: str) -> Gateway:
    """The gateway called ``name`` (danal, payco)."""
    if name not in _gateways:
        _gateways[name] = Gateway(name, {PRIMARY: settings().danal_url, FALLBACK: settings().payco_url}[name])
    return _gateways[name]


def gateways() -> list[Gateway]:
    """Both, the primary first."""
    return [gateway(PRIMARY), gateway(FALLBACK)]


def other_than(name: str) -> str:
    """The firm that stands in for ``name``."""
    return FALLBACK if name == PRIMARY else PRIMARY


def choose() -> str:
    """Where a new payment is begun: at the primary, unless its circuit keeps charges away and the other's does not."""
    if gateway(PRIMARY).charges.refuses() and not gateway(FALLBACK).charges.refuses():
        return FALLBACK
    return PRIMARY
