"""scripts/logs on what the deployed functions have really written."""

import secrets
import subprocess
from collections.abc import Callable

import httpx
import pytest

from support.client import Person
from support.waiting import wait_for


@pytest.mark.parametrize("http", ["api_url"], indirect=True)
def test_one_request_is_followed_from_the_step_to_the_consumer(
    http: httpx.Client, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    person = Person(http).join(3)
    seats = http.get("schedules/304/seats", headers=person.with_pass).json()["seats"]
    free = next(seat["number"] for seat in seats if seat["state"] == "available")
    http.headers["X-Correlation-Id"] = correlation_id = secrets.token_hex(8)

    assert person.reserve(304, [free]).status_code == 201

    shown = wait_for(
        lambda: run_script("logs", "--correlation", correlation_id[:10]).stdout,
        lambda text: "on_reservation_events" in text,
    )
    step, relay, consumer = shown.splitlines()
    assert "step6_reserve" in step and "POST /reservations  201" in step
    assert "every_minute_relay_outbox" in relay and "event published" in relay and "type=reservation.held" in relay
    assert "on_reservation_events_issue_tickets" in consumer and "type=reservation.held" in consumer
