"""A process whose threads share connections: who waits for a payment firm holds none of them."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from booking.payment.gateways import Gateway, Outcome
from booking.platform import postgres
from booking.platform.postgres import SharedServer, primary, share_connections
from support.gateways import SimulatedGateway
from support.shop import Shop

_BUYERS = 6
_DELAY_MS = 300


@pytest.fixture
def one_connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All threads share a single connection to each server."""
    sharing = postgres._Sharing()
    monkeypatch.setattr(postgres, "_sharing", sharing)
    share_connections(1)
    yield
    for shared in sharing._servers.values():
        for server in shared._free:
            server.close()


@pytest.fixture
def at_the_firm(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each charge: how many were under way at once when it began."""
    seen: list[int] = []
    under_way, charge = 0, Gateway.charge
    counting = threading.Lock()

    def counted(*asked: Any, **how: Any) -> Outcome:
        nonlocal under_way
        with counting:
            under_way += 1
            seen.append(under_way)
        try:
            return charge(*asked, **how)
        finally:
            with counting:
                under_way -= 1

    monkeypatch.setattr(Gateway, "charge", counted)
    return seen


def pay_at_once(shop: Shop, danal: SimulatedGateway) -> list[bool]:
    """Six people pay a slow firm; whether each payment is pending."""
    held = [shop.hold([number], name=f"buyer-{number}") for number in range(1, _BUYERS + 1)]
    danal.faults(delay_ms=_DELAY_MS)
    with ThreadPoolExecutor(_BUYERS) as buyers:
        paid = buyers.map(lambda number: shop.pay(held[number - 1], name=f"buyer-{number}"), range(1, _BUYERS + 1))
        return [each.pending for each in paid]


def test_payments_that_wait_for_a_firm_hold_no_connection(
    one_connection: None, at_the_firm: list[int], shop: Shop, danal: SimulatedGateway
) -> None:
    assert pay_at_once(shop, danal) == [False] * _BUYERS
    assert max(at_the_firm) == _BUYERS


def test_negative_control_a_connection_kept_while_the_firm_thinks_makes_them_queue(
    one_connection: None,
    at_the_firm: list[int],
    shop: Shop,
    danal: SimulatedGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    charge: Callable[..., Outcome] = Gateway.charge

    def charge_with_connection(*asked: Any, **how: Any) -> Outcome:
        shared = primary()
        assert isinstance(shared, SharedServer)
        with shared._one():
            return charge(*asked, **how)

    monkeypatch.setattr(Gateway, "charge", charge_with_connection)

    assert pay_at_once(shop, danal) == [False] * _BUYERS
    assert max(at_the_firm) == 1
