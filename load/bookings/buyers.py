"""Buyers who come whether or not those before them are served, each over a connection of their own.

They come from the concert's page (step 3), which any HTTP cache may have shown them: it is good for 30 seconds.
"""

import asyncio
import random
import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from drills.harness.client import Client, Reply

LOOKS_FOR_TICKET_AFTER_S, LOOKS_FOR_TICKET_EVERY_S = 2.0, 1.0
_TICKET_S_MAX = 60.0
_TIMEOUT_S = 10.0
_CHOICES_MAX = 8
_SEATS_LEFT_MIN = 4
_JSON = {"Content-Type": "application/json"}


class _Schedule(msgspec.Struct):
    id: int
    seats_left: int


class _Schedules(msgspec.Struct):
    schedules: list[_Schedule]


class _Seat(msgspec.Struct):
    number: int
    state: str


class _SeatMap(msgspec.Struct):
    seats: list[_Seat]


# Of the long answers only what a buyer looks at: the buyers share the CPUs with what they load.
_ANYTHING = msgspec.json.Decoder()
_SCHEDULES, _SEAT_MAP = msgspec.json.Decoder(_Schedules), msgspec.json.Decoder(_SeatMap)
_KEYED = ("6 reserve", "7 pay")
_CHOSEN_ANEW = ("/problems/seat-taken", "/problems/too-few-seats-left")


@dataclass(slots=True)
class Record:
    """What the buyers saw, on a clock that begins with the first of them."""

    latencies_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By step; of the first from the moment that the buyer meant to come."""
    booked_s: list[float] = field(default_factory=list)
    """From coming to having paid."""
    paid_at_s: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    """Why buyers gave up: an answer that is not the step's own, or none."""
    taken_before: int = 0
    """Seats that somebody else took between the map and the reservation: the buyer chose others."""
    seats: int = 0
    tickets: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """``count`` buyers of one concert, who come at random moments of ``duration_s``."""

    base_url: str
    concert_id: int
    count: int
    duration_s: float


async def buy(plan: Plan, record: Record) -> None:
    """Returns when the last has the ticket or gave up."""
    began_s = asyncio.get_running_loop().time()
    moments = sorted(random.uniform(0, plan.duration_s) for _ in range(plan.count))
    async with asyncio.TaskGroup() as buyers:
        for moment_s in moments:
            await asyncio.sleep(began_s + moment_s - asyncio.get_running_loop().time())
            buyers.create_task(_Buyer(plan, record, began_s).come(began_s + moment_s))


class _GaveUp(Exception):
    """The reason is its only argument."""


class _Buyer:
    def __init__(self, plan: Plan, record: Record, began_s: float) -> None:
        self._plan, self._record, self._began_s = plan, record, began_s
        self._client = Client(plan.base_url, connections_max=1, timeout_s=_TIMEOUT_S)
        self._clock = asyncio.get_running_loop().time
        self._schedules = f"/concerts/{plan.concert_id}/schedules"
        self._token, self._pass = "", ""

    async def come(self, meant_s: float) -> None:
        try:
            await self._enter(meant_s)
            reservation = await self._reserve()
            path = f"/reservations/{reservation['reservation_id']}"
            await self._ask("7 pay", "POST", f"{path}/payments", (201,), body={"method": "card"})
            paid_s = self._clock()
            self._record.booked_s.append(paid_s - meant_s)
            self._record.paid_at_s.append(paid_s - self._began_s)
            self._record.seats += len(reservation["seats"])
            await self._fetch_ticket(path)
        except _GaveUp as reason:
            self._record.faults[str(reason)] += 1
        finally:
            self._client.close()

    async def _enter(self, meant_s: float) -> None:
        body = {"concert_id": self._plan.concert_id, "user_id": f"buyer-{secrets.token_hex(16)}"}
        _, turn = await self._ask("1 join", "POST", "/queue/tokens", (201,), body=body, since_s=meant_s)
        self._token = turn["token"]
        while "pass" not in turn:
            await asyncio.sleep(turn["poll_after_ms"] / 1_000)
            _, turn = await self._ask("2 position", "GET", "/queue/tokens/current", (200,), bearer=self._token)
        self._pass = turn["pass"]

    async def _reserve(self) -> Any:
        """Look at the schedules and the seats of one; half of the buyers take a seat they see, half the best two."""
        _, listed = await self._ask("4 schedules", "GET", self._schedules, (200,), bearer="", read=_SCHEDULES)
        for _ in range(_CHOICES_MAX):
            with_seats = [one.id for one in listed.schedules if one.seats_left >= _SEATS_LEFT_MIN]
            if not with_seats:
                raise _GaveUp("no schedule has seats left")
            schedule_id = random.choice(with_seats)
            _, seat_map = await self._ask("5 seats", "GET", f"/schedules/{schedule_id}/seats", (200,), read=_SEAT_MAP)
            free = [seat.number for seat in seat_map.seats if seat.state == "available"]
            if len(free) < _SEATS_LEFT_MIN:
                continue
            wanted = {"seats": [random.choice(free)]} if random.random() < 0.5 else {"best": 2}
            body = {"schedule_id": schedule_id, **wanted}
            status, answer = await self._ask("6 reserve", "POST", "/reservations", (201, 409), body=body)
            if status == 201:
                return answer
            if answer["type"] not in _CHOSEN_ANEW:
                raise _GaveUp(f"6 reserve {answer['type']}")
            self._record.taken_before += 1
        raise _GaveUp("no seat to be had")

    async def _fetch_ticket(self, path: str) -> None:
        until_s = self._clock() + _TICKET_S_MAX
        await asyncio.sleep(LOOKS_FOR_TICKET_AFTER_S)
        while True:
            _, reservation = await self._ask("own reservation", "GET", path, (200,), bearer=self._token)
            if "ticket" in reservation:
                self._record.tickets += 1
                return
            if self._clock() > until_s:
                raise _GaveUp("no ticket came")
            await asyncio.sleep(LOOKS_FOR_TICKET_EVERY_S)

    async def _ask(
        self,
        step: str,
        method: str,
        path: str,
        accepted: Sequence[int],
        *,
        body: object = None,
        bearer: str | None = None,
        since_s: float | None = None,
        read: "msgspec.json.Decoder[Any]" = _ANYTHING,
    ) -> tuple[int, Any]:
        """Status and answer. Without ``bearer`` the pass is shown. Raises _GaveUp."""
        paper = self._pass if bearer is None else bearer
        headers = _JSON if body is not None else {}
        if paper:
            headers = headers | {"Authorization": f"Bearer {paper}"}
        if step in _KEYED:
            headers = headers | {"Idempotency-Key": secrets.token_hex(16)}
        asked_s = since_s or self._clock()
        reply = await self._client.ask(method, path, headers, msgspec.json.encode(body) if body is not None else b"")
        self._record.latencies_s[step].append(self._clock() - asked_s)
        if reply.status not in accepted:
            raise _GaveUp(f"{step} {_words(reply)}")
        return reply.status, read.decode(reply.body)


def _words(reply: Reply) -> str:
    try:
        return f"{reply.status or reply.fault} {msgspec.json.decode(reply.body)['type']}"
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"{reply.status or reply.fault}"
