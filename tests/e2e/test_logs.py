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
        lambda text: len(text.splitlines()) == 4,
    )
    step, *others = shown.splitlines()
    assert "step6_reserve" in step and "POST /reservations  201" in step
    # The relay says that it has published an event when the broker has it: a consumer may have been quicker.
    consumers = ("on_reservation_events_issue_tickets", "on_reservation_events_count_sales")
    for function, words in (("every_minute_relay_outbox", "published"), *((each, "applied") for each in consumers)):
        [line] = [line for line in others if function in line]
        assert f"event {words}" in line and "type=reservation.held" in line
