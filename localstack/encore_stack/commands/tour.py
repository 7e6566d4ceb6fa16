"""`scripts/tour`: one person books one ticket through the seven steps, over HTTP."""

import argparse
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from encore_stack.commands import audit
from encore_stack.instance import Instance
from encore_stack.parts.localstack import deployed_api_url

_WAIT_S_MAX = 120
_TICKET_WAIT_S_MAX = 60
_TICKET_POLL_S = 0.1


class TourEnded(Exception):
    """A step did not answer as it should; the message says which and what to look at."""


@dataclass(slots=True)
class Visitor:
    """Somebody who books: an HTTP client that prints each step with its time and its answer."""

    client: httpx.Client

    def step(self, title: str, method: str, path: str, accepted: Sequence[int], **request: Any) -> httpx.Response:
        """One request. Raises TourEnded unless it is answered with one of the ``accepted`` statuses."""
        started_s = time.perf_counter()
        try:
            response = self.client.request(method, path.lstrip("/"), **request)
        except httpx.HTTPError as fault:
            raise TourEnded(f"{title}: {method} {path} got no answer ({fault!r}); see scripts/status") from fault
        elapsed_ms = (time.perf_counter() - started_s) * 1000
        print(f"  {title:<18} {method:<5} {_short(path):<40} {response.status_code}  {elapsed_ms:7.1f} ms", flush=True)
        if response.status_code not in accepted:
            correlation = response.headers.get("X-Correlation-Id")
            look = f"scripts/logs -c {correlation}" if correlation else "scripts/logs --level error"
            raise TourEnded(f"{title}: {response.status_code} {response.text[:500]}\n  what happened: {look}")
        return response


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 a ticket was booked and the audit passed, 1 otherwise, 2 bad options."""
    options = _parser().parse_args(arguments)
    instance = Instance.load_existing()
    url = options.url or (instance.url("gateway") if options.gateway else deployed_api_url(instance))
    if url is None:
        print("error: nothing is deployed; run scripts/up", file=sys.stderr)
        return 1
    print(f"one person books one ticket at {url}")
    try:
        with httpx.Client(base_url=url.rstrip("/") + "/", timeout=30, trust_env=bool(options.url)) as client:
            book_one_ticket(Visitor(client), options.concert)
    except TourEnded as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    print("the audit")
    return 1 if audit.run(["--settle", "30"]) else 0


def book_one_ticket(visitor: Visitor, concert_id: int) -> None:
    """The seven steps and the ticket. Raises TourEnded."""
    joined = visitor.step(
        "1 join the line", "POST", "/queue/tokens", (201, 200),
        json={"concert_id": concert_id, "user_id": f"tour-{secrets.token_hex(16)}"},
    ).json()  # fmt: skip
    _tell(_turn(joined))
    shopper = _wait_for_pass(visitor, joined)
    concerts = visitor.step("3 concerts", "GET", "/concerts", (200,)).json()["concerts"]
    _tell(", ".join(f"{concert['title']} ({concert['status']})" for concert in concerts[:3]) + ", …")
    schedule = _schedule_with_seats(visitor, concert_id)
    seat = _free_seat(visitor, schedule, shopper)
    reservation = visitor.step(
        "6 reserve", "POST", "/reservations", (201,), headers=shopper | _new_key(),
        json={"schedule_id": schedule, "seats": [seat]},
    ).json()  # fmt: skip
    _tell(
        f"seat {seat} is theirs until {reservation['expires_at']}: {reservation['total']:,} {reservation['currency']}"
    )
    path = f"/reservations/{reservation['reservation_id']}"
    paid = visitor.step(
        "7 pay", "POST", f"{path}/payments", (201, 202), headers=shopper | _new_key(), json={"method": "card"}
    ).json()
    _tell(f"{paid['status']} by {paid['gateway']}: {paid['amount']:,} {paid['currency']}")
    # The token outlives the pass, so the ticket is fetched with it.
    _wait_for_ticket(visitor, path, {"Authorization": f"Bearer {joined['token']}"})


def _wait_for_pass(visitor: Visitor, turn: dict[str, Any]) -> dict[str, str]:
    token = {"Authorization": f"Bearer {turn['token']}"}
    deadline_s = time.monotonic() + _WAIT_S_MAX
    while time.monotonic() < deadline_s:
        time.sleep((turn.get("poll_after_ms") or 0) / 1000)
        turn = visitor.step("2 where am I", "GET", "/queue/tokens/current", (200,), headers=token).json()
        _tell(_turn(turn))
        if turn["state"] == "admitted":
            return {"Authorization": f"Bearer {turn['pass']}"}
    raise TourEnded(f"2 where am I: not admitted within {_WAIT_S_MAX} s")


def _schedule_with_seats(visitor: Visitor, concert_id: int) -> int:
    answer = visitor.step("4 schedules", "GET", f"/concerts/{concert_id}/schedules", (200,)).json()
    for schedule in answer["schedules"]:
        if schedule["seats_left"]:
            _tell(f"{schedule['starts_at']}: {schedule['seats_left']} of {schedule['seats_total']} seats left")
            return int(schedule["id"])
    raise TourEnded(f"4 schedules: no seat left in concert {concert_id}; try --concert with another one")


def _free_seat(visitor: Visitor, schedule_id: int, shopper: dict[str, str]) -> int:
    answer = visitor.step("5 seats", "GET", f"/schedules/{schedule_id}/seats", (200,), headers=shopper).json()
    free = [seat for seat in answer["seats"] if seat["state"] == "available"]
    if not free:
        raise TourEnded(f"5 seats: none is free in schedule {schedule_id}; try --concert with another one")
    _tell(f"{len(free)} of {len(answer['seats'])} are free; section {free[0]['section']} row {free[0]['row']}")
    return int(free[0]["number"])


def _wait_for_ticket(visitor: Visitor, path: str, token: dict[str, str]) -> None:
    started_s = time.monotonic()
    while time.monotonic() - started_s < _TICKET_WAIT_S_MAX:
        answer = visitor.client.get(path.lstrip("/"), headers=token)
        if answer.status_code == 200 and "ticket" in answer.json():
            waited_s = time.monotonic() - started_s
            print(f"  the ticket         issued by the Kafka consumer after                  {waited_s * 1000:7.1f} ms")
            _tell(f"code {answer.json()['ticket']['code']}")
            return
        time.sleep(_TICKET_POLL_S)
    raise TourEnded(
        f"the ticket: not issued within {_TICKET_WAIT_S_MAX} s; see scripts/status, and the logs of"
        " every_minute_relay_outbox, the poller and on_reservation_events_issue_tickets"
    )


def _turn(turn: dict[str, Any]) -> str:
    if turn["state"] == "admitted":
        return f"admitted: a pass until {turn['pass_expires_at']}"
    return f"waiting: {turn['ahead']:,} ahead, about {turn['eta_s']} s"


def _tell(text: str) -> None:
    print(f"{'':21}{text}", flush=True)


def _short(path: str) -> str:
    return "/".join(part if len(part) < 20 else f"{part[:8]}…" for part in path.split("/"))


def _new_key() -> dict[str, str]:
    return {"Idempotency-Key": secrets.token_hex(16)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/tour",
        description="Book one ticket as one person would, through the seven steps, over HTTP.",
        epilog="exit codes: 0 a ticket was booked and the audit passed, 1 otherwise, 2 bad options",
    )
    parser.add_argument("--concert", type=int, default=1, help="which concert (default %(default)s)")
    parser.add_argument("--gateway", action="store_true", help="through the fast gateway instead of LocalStack")
    parser.add_argument("--url", help="through the API at this URL")
    return parser
