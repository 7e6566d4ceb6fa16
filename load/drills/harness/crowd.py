"""The people of a drill: they come as planned, act as a page in a browser acts for a person, and go home at the end.

Whatever is refused they ask again with the same Idempotency-Key, when Retry-After says: the drill is about that.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from booking.queue import read_pass, read_token
from drills.harness.client import Client, Reply
from drills.harness.people import Person, Ticket, Told, Turn
from drills.harness.record import Answer, Outcome, Record, outcome_of

_ARRIVALS_S = 0.02
_RETRY_S_MAX = 10.0
_BACKOFF_S, _BACKOFF_S_MAX = 0.25, 4.0
_TICKET_POLL_S = 0.5
_LOOKS_AT_MAPS_MAX = 20
_GOING_HOME_S = 25.0
"""How long who is inside at the end may take to pay and fetch the ticket."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many come, when, and what they do inside. ``people_max`` bounds the drill."""

    at_once: int
    """Who stand there when it begins: they come within ``within_s``."""
    within_s: float
    then_per_s: float
    """Who come after them, each second to the end."""
    people_max: int
    stay_s_max: float = 0.0
    """Inside, people look, reserve and give back for up to so long (each their own time) before they pay."""
    think_s_max: float = 0.5
    buys: bool = True
    """Otherwise they leave as soon as they have the pass: for drills about the line alone."""
    connections_max: int = 200
    timeout_s: float = 10.0
    may_lose_commits: bool = False
    """Whether it is part of it that a reservation is gone (404) which somebody was told they have."""


@dataclass(frozen=True, slots=True)
class Concert:
    """What the people want to get into."""

    concert_id: int
    schedule_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Something that somebody was told is done, at ``at_s`` of the drill's clock."""

    at_s: float
    kind: Literal["held", "cancelled", "paid"]
    reservation_id: str


class _GoneHome(Exception):
    """The drill ends, and the person has no turn yet or no seats."""


class _GaveUp(Exception):
    """An answer that no retry helps; the message says which."""


@dataclass
class Crowd:
    """Everybody who comes. ``start_s`` is the drill's zero on the monotonic clock."""

    plan: Plan
    concert: Concert
    url: str
    start_s: float = field(default_factory=time.monotonic)
    record: Record = field(default_factory=Record)
    people: list[Person] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    acknowledged: list[Acknowledged] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.closing = asyncio.Event()
        self._client = Client(self.url, connections_max=self.plan.connections_max, timeout_s=self.plan.timeout_s)
        self._tasks: set[asyncio.Task[None]] = set()
        self._rushes = [(self.plan.at_once, 0.0, self.plan.within_s)]

    def clock(self) -> float:
        """Seconds since the drill began."""
        return time.monotonic() - self.start_s

    @property
    def under_way(self) -> int:
        """How many have come and not ended."""
        return len(self._tasks)

    async def come(self) -> None:
        """Let people come as planned until ``go_home``."""
        plan = self.plan
        while not self.closing.is_set():
            now_s = self.clock()
            due = plan.then_per_s * max(0.0, now_s - plan.within_s)
            due += sum(count * min(1.0, (now_s - from_s) / within_s) for count, from_s, within_s in self._rushes)
            for _ in range(min(int(due), plan.people_max) - len(self.people)):
                self._start(Person(secrets.token_hex(16)))
            await self.pause(_ARRIVALS_S)

    def rush(self, count: int, within_s: float) -> None:
        """So many more come from now on, evenly within so long."""
        self._rushes.append((count, self.clock(), within_s))

    async def go_home(self) -> None:
        """Nobody comes any more, who waits leaves, who is inside pays at once; returns when all have ended."""
        self.closing.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_GOING_HOME_S + 2 * self.plan.timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._client.close()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until everybody goes home."""
        if self.closing.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self.closing.wait()
        except TimeoutError:
            pass

    def acknowledge(self, kind: Literal["held", "cancelled", "paid"], reservation_path: str) -> None:
        """Somebody was just told that this is done."""
        self.acknowledged.append(Acknowledged(self.clock(), kind, reservation_path.rpartition("/")[2]))

    async def send(
        self, step: str, method: str, path: str, headers: Mapping[str, str], body: bytes, accepted: Collection[int]
    ) -> tuple[Reply, Outcome]:
        """One request and its answer, recorded."""
        asked_s = self.clock()
        reply = await self._client.ask(method, path, headers, body)
        outcome = outcome_of(reply, accepted)
        problem = reply.fault or (_problem(reply) if outcome is not Outcome.OK else "")
        self.record.add(Answer(step, asked_s, self.clock() - asked_s, reply.status, problem, outcome))
        return reply, outcome

    def _start(self, person: Person) -> None:
        self.people.append(person)
        task = asyncio.create_task(_Buyer(self, person).walk())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Buyer:
    """One person's way: join, wait as told, look around, reserve, pay, fetch the ticket."""

    def __init__(self, crowd: Crowd, person: Person) -> None:
        self._crowd = crowd
        self._person = person
        self._concert = crowd.concert
        self._token = ""
        self._pass = ""
        self._poll_after_s = 0.0
        self._pending_poll_s = _TICKET_POLL_S
        """How often to look at a payment whose outcome is open, as step 7 said."""

    async def walk(self) -> None:
        person = self._person
        try:
            await self._join()
            await self._wait_for_pass()
            if self._crowd.plan.buys:
                await self._shop()
                person.outcome = "ticket"
            else:
                await self._leave()
                person.outcome = "left"
        except _GoneHome:
            person.outcome = "went home"
        except _GaveUp as fault:
            person.outcome = f"gave up: {fault}"
        except asyncio.CancelledError:
            person.outcome = "gave up: had not ended in time"
            raise
        finally:
            if person.turns and person.turns[-1].over_s is None:
                person.turns[-1].over_s = self._crowd.clock()

    # -- the line --

    async def _join(self) -> None:
        crowd, person = self._crowd, self._person
        if person.asked_s is None:
            person.asked_s = crowd.clock()
        body = {"concert_id": self._concert.concert_id, "user_id": person.user_id}
        asked_s, reply = await self._ask("step1_join_queue", "POST", "/queue/tokens", body=body, accepted=(200, 201))
        answer = _json(reply)
        self._token = answer["token"]
        person.turns.append(Turn(read_token(self._token).place, crowd.clock()))
        self._listen(answer, asked_s)

    async def _wait_for_pass(self) -> None:
        crowd = self._crowd
        while not self._pass:
            await crowd.pause(self._poll_after_s)
            if crowd.closing.is_set():
                await self._leave()
                raise _GoneHome
            asked_s, reply = await self._ask(
                "step2_queue_position", "GET", "/queue/tokens/current", bearer=self._token, accepted=(200, 410)
            )
            if reply.status == 410:
                problem = _problem(reply)
                self._person.turns[-1].lost = f"{problem} while its owner waited"
                if problem != "/problems/turn-over":
                    raise _GaveUp(problem)
                await self._join()
            else:
                self._listen(_json(reply), asked_s)

    def _listen(self, answer: Mapping[str, Any], asked_s: float) -> None:
        """Take in an answer of step 1 or 2."""
        crowd, turn = self._crowd, self._person.turns[-1]
        if answer["state"] == "admitted":
            self._pass = answer["pass"]
            shopper = read_pass(self._pass)
            turn.admission, turn.pass_place, turn.fetched_s = shopper.number, shopper.place, crowd.clock()
        else:
            self._poll_after_s = answer["poll_after_ms"] / 1000
            turn.waited_s = asked_s
            crowd.told.append(Told(asked_s, crowd.clock(), turn.place, answer["ahead"], answer["eta_s"]))

    async def _leave(self) -> None:
        """Once, politely: whoever goes home does not wait for an answer that does not come."""
        self._person.turns[-1].over_s = self._crowd.clock()
        headers = {"Authorization": f"Bearer {self._token}"}
        await self._crowd.send("step2_queue_position", "DELETE", "/queue/tokens/current", headers, b"", (204,))

    # -- the shop --

    async def _shop(self) -> None:
        crowd = self._crowd
        pays_at_s = crowd.clock() + random.uniform(0, crowd.plan.stay_s_max)
        await self._ask("step3_concerts", "GET", "/concerts")
        while True:
            path = f"/reservations/{await self._reserve()}"
            if crowd.clock() >= pays_at_s or crowd.closing.is_set():
                break
            await self._think()
            _, reply = await self._ask("reservation", "DELETE", path, bearer=self._token, accepted=self._or_gone(200))
            if reply.status == 200:
                crowd.acknowledge("cancelled", path)
        while True:
            await self._pay(path)
            if await self._fetch_ticket(path):
                return

    async def _reserve(self) -> str:
        """Looks at a map, picks, asks; where somebody was faster, again. The reservation's id."""
        wanted = random.choice((1, 1, 2))
        for _ in range(_LOOKS_AT_MAPS_MAX):
            await self._think()
            await self._ask("step3_concerts", "GET", f"/concerts/{self._concert.concert_id}")
            await self._ask("step4_schedules", "GET", f"/concerts/{self._concert.concert_id}/schedules")
            schedule = random.choice(self._concert.schedule_ids)
            _, reply = await self._ask("step5_seats", "GET", f"/schedules/{schedule}/seats", bearer=self._pass)
            free = [seat.number for seat in _MAP.decode(reply.body).seats if seat.state == "available"]
            if len(free) < wanted:
                continue
            await self._think()
            body = {"schedule_id": schedule, "seats": random.sample(free, wanted)}
            _, reply = await self._ask(
                "step6_reserve", "POST", "/reservations", body=body, bearer=self._pass, key=_key(), accepted=(201, 409)
            )
            if reply.status == 201:
                reservation_id = str(_json(reply)["reservation_id"])
                self._crowd.acknowledge("held", reservation_id)
                return reservation_id
            if _problem(reply) != "/problems/seat-taken":
                raise _GaveUp(f"step6_reserve {_problem(reply)}")
        raise _GaveUp("no free seats found")

    async def _pay(self, path: str) -> None:
        await self._think()
        key = _key()
        while True:
            self._person.turns[-1].over_s = self._crowd.clock()
            _, reply = await self._ask(
                "step7_pay", "POST", f"{path}/payments", body={"method": "card"}, bearer=self._pass, key=key,
                accepted=self._or_gone(201, 202, 409),
            )  # fmt: skip
            self._give_up_what_is_gone(reply)
            if reply.status == 201:
                self._crowd.acknowledge("paid", path)
            if reply.status == 202:
                self._pending_poll_s = _read_pending(reply)
            if reply.status != 409:
                return
            if _problem(reply) != "/problems/payment-in-progress":
                raise _GaveUp(f"step7_pay {_problem(reply)}")
            await asyncio.sleep(reply.retry_after_s or _TICKET_POLL_S)  # a twin of this request is still at it

    async def _fetch_ticket(self, path: str) -> bool:
        """Wait for it; False when a payment that was pending has come to nothing and the seats are only held again."""
        crowd = self._crowd
        paid_s = crowd.clock()
        while True:
            _, reply = await self._ask("reservation", "GET", path, bearer=self._token, accepted=self._or_gone(200))
            self._give_up_what_is_gone(reply)
            reservation = _json(reply)
            if "ticket" in reservation:
                crowd.tickets.append(Ticket(paid_s, crowd.clock()))
                return True
            if reservation["status"] == "held":
                return False
            if reservation["status"] not in ("confirmed", "paying"):
                raise _GaveUp(f"paid, and the reservation is {reservation['status']}")
            is_open = reservation["status"] == "paying"
            await asyncio.sleep(self._pending_poll_s if is_open else _TICKET_POLL_S)

    def _or_gone(self, *accepted: int) -> tuple[int, ...]:
        return (*accepted, 404) if self._crowd.plan.may_lose_commits else accepted

    def _give_up_what_is_gone(self, reply: Reply) -> None:
        if reply.status == 404:
            raise _GaveUp("the reservation is gone")

    async def _think(self) -> None:
        await self._crowd.pause(random.uniform(0.5, 1) * self._crowd.plan.think_s_max)

    async def _ask(
        self,
        step: str,
        method: str,
        path: str,
        *,
        body: object = None,
        bearer: str = "",
        key: str = "",
        accepted: Collection[int] = (200,),
    ) -> tuple[float, Reply]:
        """When it was asked, and the answer; asked again as long as that may help, always with the same key.

        Raises _GaveUp for an answer that nobody expects, and _GoneHome where the end of the drill finds a person in
        front of a closed door.
        """
        headers = {"Content-Type": "application/json"} if body is not None else {}
        headers |= {"Authorization": f"Bearer {bearer}"} if bearer else {}
        headers |= {"Idempotency-Key": key} if key else {}
        content = msgspec.json.encode(body) if body is not None else b""
        backoff_s = _BACKOFF_S
        while True:
            asked_s = self._crowd.clock()
            reply, outcome = await self._crowd.send(step, method, path, headers, content, accepted)
            if outcome in (Outcome.OK, Outcome.DECLINED):
                return asked_s, reply
            if outcome is Outcome.BROKEN and not (reply.fault or reply.status >= 500 or reply.status == 429):
                raise _GaveUp(f"{step} {reply.status} {_problem(reply)}")
            if self._crowd.closing.is_set():
                if not self._pass:
                    raise _GoneHome
                await asyncio.sleep(min(reply.retry_after_s or backoff_s, _BACKOFF_S_MAX))
            else:
                await self._crowd.pause(min(reply.retry_after_s or random.uniform(0.5, 1) * backoff_s, _RETRY_S_MAX))
            backoff_s = min(2 * backoff_s, _BACKOFF_S_MAX)


class _Seat(msgspec.Struct):
    number: int
    state: str


class _Map(msgspec.Struct):
    seats: list[_Seat]


_MAP = msgspec.json.Decoder(_Map)


def _json(reply: Reply) -> Any:
    return msgspec.json.decode(reply.body)


def _problem(reply: Reply) -> str:
    """The ``type`` of a problem, else the beginning of what was said instead."""
    try:
        answer = msgspec.json.decode(reply.body)
    except msgspec.DecodeError:
        return reply.fault or reply.body[:80].decode(errors="replace")
    return str(answer.get("type") or answer.get("message") or "") if isinstance(answer, dict) else ""


def _read_pending(reply: Reply) -> float:
    """When to look again (s). Raises _GaveUp where the answer does not say that, or what one may do meanwhile."""
    if reply.retry_after_s is None or "cancel" not in (_json(reply).get("options") or ()):
        raise _GaveUp("pending, and nobody says what one may do")
    return reply.retry_after_s


def _key() -> str:
    return secrets.token_hex(16)
