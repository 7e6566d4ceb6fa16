"""Many people who want the same seats at the same moment, by function and over HTTP, and what must be true then."""

import http.client
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from booking.platform.postgres import primary
from booking.platform.problems import Refusal
from booking.queue.tokens import sign_pass
from booking.seats.problems import SeatTaken
from support.shop import Shop, new_key

AT_ONCE = 40
"""Threads of a race by function, each with a connection of its own; Postgres takes 200."""
_ANSWER_WAIT_S = 30
_RETRY_PAUSE_S = 0.02


def everybody_at_once(people: int, attempt: Callable[[int], str], at_once: int = AT_ONCE) -> Counter[str]:
    """How the attempts of so many people ended, by outcome."""
    with ThreadPoolExecutor(at_once) as crowd:
        return Counter(crowd.map(attempt, range(people)))


def outcome_of(hold: Callable[[], object]) -> str:
    try:
        hold()
    except Refusal as refused:
        return refused.slug
    return "held"


class Answer(NamedTuple):
    """What one person was told; status 0: the connection ended without an answer."""

    status: int
    body: dict[str, Any]

    @property
    def is_final(self) -> bool:
        """Whether a client has nothing to try again."""
        return self.status not in (0, 503)


class Wish(NamedTuple):
    """One person's request to reserve, the same at each retry."""

    shop: Shop
    name: str
    seats: list[int]
    key: str

    def by_function(self) -> Answer:
        try:
            return Answer(201, self.shop.hold(self.seats, self.name, self.key))
        except SeatTaken as taken:
            return Answer(taken.status, {"type": f"/problems/{taken.slug}", **taken.members})
        except Refusal as refused:
            return Answer(refused.status, {"type": f"/problems/{refused.slug}"})

    def over_http(self, url: str) -> Answer:
        """Ask once."""
        return Crowd(url, [self]).answers()[0]

    def insist(self, url: str) -> Answer:
        """Ask until there is an answer, as a client does that was told 503 or lost its connection."""
        deadline_s = time.monotonic() + _ANSWER_WAIT_S
        while not (answer := self.over_http(url)).is_final:
            assert time.monotonic() < deadline_s, f"no answer for {self.name}: {answer}"
            time.sleep(_RETRY_PAUSE_S)
        return answer


def make_wishes(shop: Shop, people: int, seats: int, each_max: int = 4) -> list[Wish]:
    """What so many people want: 1 to ``each_max`` of so many seats, in any order; the same for the same numbers."""
    chance = random.Random(people * 1_000 + seats)
    return [
        Wish(shop, f"person-{n}", chance.sample(range(1, seats + 1), min(n % each_max + 1, seats)), new_key())
        for n in range(people)
    ]


def all_by_function(wishes: Sequence[Wish]) -> list[Answer]:
    with ThreadPoolExecutor(AT_ONCE) as crowd:
        return list(crowd.map(Wish.by_function, wishes))


def all_over_http(url: str, wishes: Sequence[Wish]) -> list[Answer]:
    return Crowd(url, wishes).answers()


class Crowd:
    """Everybody's request is sent, each on a connection of its own that was open before, and none is answered yet.

    ``also_to``: other URLs of the same shop; people take turns.
    """

    def __init__(self, url: str, wishes: Sequence[Wish], also_to: Sequence[str] = ()) -> None:
        addresses = [urlsplit(address) for address in (url, *also_to)]
        self._connections = [
            http.client.HTTPConnection(address.hostname or "", address.port, timeout=_ANSWER_WAIT_S)
            for address in (addresses[n % len(addresses)] for n in range(len(wishes)))
        ]
        for connection in self._connections:
            with suppress(ConnectionRefusedError):  # that is an answer, too: none
                connection.connect()
        for n, (connection, wish) in enumerate(zip(self._connections, wishes, strict=True)):
            body = msgspec.json.encode({"schedule_id": wish.shop.concert_id, "seats": wish.seats})
            shop_pass = sign_pass(wish.shop.shopper(wish.name, expires_in_s=7_200))
            headers = {
                "Authorization": f"Bearer {shop_pass}",
                "Content-Type": "application/json",
                "Idempotency-Key": wish.key,
                "Connection": "close",
            }
            path = addresses[n % len(addresses)].path.rstrip("/")
            with suppress(OSError):
                connection.request("POST", f"{path}/reservations", body, headers)

    def answers(self) -> list[Answer]:
        """Everybody's, in the order of the wishes."""
        return [self._answer(connection) for connection in self._connections]

    @staticmethod
    def _answer(connection: http.client.HTTPConnection) -> Answer:
        if connection.sock is None:
            return Answer(0, {})
        try:
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            return Answer(0, {})
        finally:
            connection.close()
        return Answer(response.status, msgspec.json.decode(text))


def assert_sold_once(wishes: Sequence[Wish], answers: Sequence[Answer]) -> list[tuple[Wish, Answer]]:
    """Each seat went to at most one person, and everybody was told the truth. Returns who won, and what they were told.

    The database's rows say who has a seat, its ledger that nobody had it before. Losers are told which seats are taken.
    """
    shop = wishes[0].shop
    had: dict[int, str] = {}
    winners: list[tuple[Wish, Answer]] = []
    for wish, answer in zip(wishes, answers, strict=True):
        if answer.status == 201:
            assert answer.body["seats"] == sorted(wish.seats)
            assert not had.keys() & wish.seats, f"{wish.name} was told that seats are theirs which another has"
            had |= dict.fromkeys(wish.seats, answer.body["reservation_id"])
            winners.append((wish, answer))
        else:
            assert (answer.status, answer.body["type"]) == (409, "/problems/seat-taken"), answer
            assert answer.body["seats"], "a loser was not told which seats are taken"
            assert set(answer.body["seats"]) <= set(wish.seats)
    held = primary().rows(
        "select number, reservation_id::text from seat where schedule_id = :id and state <> 'available'",
        id=shop.concert_id,
    )
    assert dict(held) == had
    ledger = primary().rows(
        "select number, event from seat_ledger where schedule_id = :id order by number", id=shop.concert_id
    )
    assert ledger == [[number, "held"] for number in sorted(had)]
    return winners
