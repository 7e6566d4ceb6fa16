"""What sample events need of a running instance: people in a line, their tokens and passes, seats, reservations.

All of it is asked of the API, as a person's page would, so it is as real as what people have.
"""

import random
import secrets
import time
import uuid
from collections.abc import Callable
from functools import cache
from typing import Any

import httpx

from encore_stack.sample_events import BadEvent

_ADMISSION_S_MAX = 30.0
_TIMEOUT_S = 15.0


class NoPapers(Exception):
    """The API does not give what an event needs; the message has its answer."""


class Papers:
    """One person's papers, made when they are first asked for; use one object for each event.

    Placeholders with an argument take a concert's id: ``{{pass:1}}``.
    """

    def __init__(self, api_url: str) -> None:
        self._api_url = api_url
        # Plain HTTP on loopback: to load the certificates of the world takes 45 ms.
        self._client = httpx.Client(
            base_url=api_url.rstrip("/") + "/",
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=False,  # noqa: S501
        )
        self._user = secrets.token_hex(16)
        self._turn = cache(self._join)
        self._schedule = cache(self._find_schedule)
        self._reservation = cache(self._reserve)
        self._plain: dict[str, Callable[[], str]] = {"user": lambda: self._user}
        self._of_concert: dict[str, Callable[[int], object]] = {
            "token": lambda concert: self._turn(concert)["token"],
            "pass": lambda concert: self._turn(concert)["pass"],
            "schedule": self._schedule,
            "seat": self._free_seat,
            "taken_seat": self._taken_seat,
            "reservation": lambda concert: self._reservation(concert)["reservation_id"],
        }

    def __enter__(self) -> "Papers":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def fill(self, name: str, argument: str) -> str:
        """The value of a placeholder. Raises BadEvent for one that is not known, NoPapers."""
        if name == "uuid":  # the argument tells several apart
            return str(uuid.uuid4())
        try:
            if name in self._plain and not argument:
                return self._plain[name]()
            if name in self._of_concert and argument.isdecimal():
                return str(self._of_concert[name](int(argument)))
        except NoPapers as fault:
            raise NoPapers(f"{_spelled(name, argument)} cannot be filled in: {fault}") from fault
        except httpx.HTTPError as fault:
            raise NoPapers(f"the API does not answer ({fault!r}): see scripts/status") from fault
        raise BadEvent(f"{_spelled(name, argument)} is no placeholder; there are: {', '.join(PLACEHOLDERS)}")

    def _join(self, concert_id: int) -> Any:
        turn = self._ask("POST", "queue/tokens", json={"concert_id": concert_id, "user_id": self._user})
        deadline = time.monotonic() + _ADMISSION_S_MAX
        while turn["state"] != "admitted":
            if time.monotonic() > deadline:
                raise NoPapers(f"the line of concert {concert_id} let nobody in for {_ADMISSION_S_MAX:.0f} s")
            time.sleep(turn["poll_after_ms"] / 1000)
            turn = self._ask("GET", "queue/tokens/current", turn["token"])
        return turn

    def _find_schedule(self, concert_id: int) -> int:
        for schedule in self._ask("GET", f"concerts/{concert_id}/schedules")["schedules"]:
            if schedule["seats_left"]:
                return int(schedule["id"])
        raise NoPapers(f"no seat is left in any schedule of concert {concert_id}")

    def _free_seat(self, concert_id: int) -> int:
        schedule = self._schedule(concert_id)
        seats = self._ask("GET", f"schedules/{schedule}/seats", self._turn(concert_id)["pass"])["seats"]
        free = [int(seat["number"]) for seat in seats if seat["state"] == "available"]
        if not free:
            raise NoPapers(f"no seat is free in schedule {schedule}")
        return random.choice(free)

    def _taken_seat(self, concert_id: int) -> int:
        """A seat that somebody else holds."""
        with Papers(self._api_url) as other:
            return int(other._reservation(concert_id)["seats"][0])

    def _reserve(self, concert_id: int) -> Any:
        wanted = {"schedule_id": self._schedule(concert_id), "seats": [self._free_seat(concert_id)]}
        key = {"Idempotency-Key": str(uuid.uuid4())}
        return self._ask("POST", "reservations", self._turn(concert_id)["pass"], json=wanted, headers=key)

    def _ask(
        self,
        method: str,
        path: str,
        bearer: str | None = None,
        json: object = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """The answer's JSON. Raises NoPapers unless it is 2xx, httpx.HTTPError where there is none."""
        given = {**(headers or {}), **({"Authorization": f"Bearer {bearer}"} if bearer else {})}
        answer = self._client.request(method, path, json=json, headers=given)
        if not answer.is_success:
            raise NoPapers(f"{method} /{path} answered {answer.status_code} {answer.text[:300]}")
        return answer.json()


PLACEHOLDERS = (
    "{{user}}",
    "{{uuid}}",
    "{{token:CONCERT}}",
    "{{pass:CONCERT}}",
    "{{schedule:CONCERT}}",
    "{{seat:CONCERT}}",
    "{{taken_seat:CONCERT}}",
    "{{reservation:CONCERT}}",
)


def _spelled(name: str, argument: str) -> str:
    return "{{" + name + (f":{argument}" if argument else "") + "}}"
