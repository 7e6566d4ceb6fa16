"""People who pay over HTTP, some from two devices at once, some with second thoughts; and what they are told.

Each request that got no answer, or 503, is sent again under its key, as a client does.
"""

import http.client
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from booking.platform.postgres import Queries, primary
from booking.queue.tokens import sign_pass
from support.races import Answer
from support.shop import Shop, new_key
from support.waiting import wait_for

AT_ONCE = 64
_PATIENCE_S = 60
_ANSWER_S_MAX = 10
_KEYS_MAX = 2
_PAUSE_S = 0.3, 0.9
_OPEN = ("held", "paying")


class Told(NamedTuple):
    """What step 7 has said of a payment, as its end."""

    payment_id: str
    status: str


class Lost(NamedTuple):
    """A request to pay that ended without an answer: of which reservation, sent when, lost when."""

    reservation_id: str
    from_s: float
    until_s: float


class Answers:
    """How many answers people have had: by this time passes for what happens meanwhile, on slow machines as on fast."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()
        self._over = False

    def one_more(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def end(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wait_for(self, more: int, within_s: float) -> bool:
        """Return after so many more answers, or so many seconds. Whether there are more to come."""
        with self._changed:
            goal = self._count + more
            self._changed.wait_for(lambda: self._over or self._count >= goal, within_s)
            return not self._over


class OutOfPatience(Exception):
    """There was no final answer for too long."""


@dataclass
class Payer:
    """Somebody with a reservation. ``habit``: a method's name, see HABITS."""

    url: str
    answers: Answers
    shop: Shop
    name: str
    habit: str
    chance: random.Random
    seat: int
    reservation_id: str = ""
    told: list[Told] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What no client should meet: answers that the contract does not have, no final answer."""
    gave_back: bool = False
    status: str = ""
    """The reservation's, as they saw it last."""

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        self._host, self._port = address.hostname or "", address.port
        self._with_pass = {
            "Authorization": f"Bearer {sign_pass(self.shop.shopper(self.name, expires_in_s=7_200))}",
            "Content-Type": "application/json",
        }
        self._until_s = float("inf")

    def live(self) -> None:
        """Do as their habit is, until they know how it ended."""
        self._until_s = time.monotonic() + _PATIENCE_S
        try:
            HABITS[self.habit](self)
            if self.reservation_id:
                self.status = self._await_outcome()
        except OutOfPatience as fault:
            self.wrong.append(f"no final answer: {fault}")

    # --- habits -------------------------------------------------------------------------------------------------

    def pay(self) -> None:
        """And where the firm declines, mostly once more, as another payment."""
        for _ in range(_KEYS_MAX):
            if self._pay_with(new_key()) != "declined" or self.chance.random() < 0.5:
                return

    def pay_twice_at_once(self) -> None:
        """Two devices send the same request."""
        key = new_key()
        self._at_once(lambda: self._pay_with(key), lambda: self._pay_with(key))

    def pay_with_two_keys(self) -> None:
        self._at_once(self.pay, self.pay)

    def pay_and_give_back(self) -> None:
        """As soon as it is paid."""
        self.pay()
        self._give_back()

    def pay_and_give_back_at_once(self) -> None:
        """Second thoughts while the payment is under way."""

        def soon() -> None:
            time.sleep(self.chance.choice((0, 0.02, 0.1, 0.4)))
            self._give_back()

        self._at_once(self.pay, soon)

    # ------------------------------------------------------------------------------------------------------------

    def reserve(self) -> bool:
        """Ask for the seat. Whether they have it now."""
        key = new_key()
        body = {"schedule_id": self.shop.concert_id, "seats": [self.seat]}
        answer = self._insist("POST", "/reservations", body, {"Idempotency-Key": key})
        if answer.status == 201:
            self.reservation_id = answer.body["reservation_id"]
        elif answer.status != 409:
            self.wrong.append(f"reserve was answered {answer}")
        return answer.status == 201

    def _at_once(self, *devices: Callable[[], object]) -> None:
        def use(device: Callable[[], object]) -> None:
            try:
                device()
            except OutOfPatience as fault:
                self.wrong.append(f"no final answer: {fault}")

        threads = [threading.Thread(target=use, args=(device,)) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _pay_with(self, key: str) -> str:
        """The payment's end, or why there is none under this key."""
        path = f"/reservations/{self.reservation_id}/payments"
        while True:
            answer = self._insist("POST", path, {"method": "card"}, {"Idempotency-Key": key})
            match answer.status, answer.body.get("type", "").removeprefix("/problems/"):
                case 201, _:
                    self.told.append(Told(answer.body["payment_id"], answer.body["status"]))
                    return str(answer.body["status"])
                case 402, _:
                    payment = answer.body["payment"]
                    self.told.append(Told(payment["payment_id"], payment["status"]))
                    return "declined"
                case (202, _) | (409, "payment-in-progress"):
                    self._await_outcome()
                    self._pause("the payment is pending")
                case (409, "already-paid") | (410, "hold-expired"):
                    return "refused"
                case _:
                    self.wrong.append(f"pay was answered {answer}")
                    return "refused"

    def _give_back(self) -> None:
        self.gave_back = True
        while True:
            answer = self._insist("DELETE", f"/reservations/{self.reservation_id}")
            slug = answer.body.get("type", "").removeprefix("/problems/")
            if (answer.status, slug) == (409, "payment-in-progress"):
                self._pause("the firm does not cancel")
                continue
            if (answer.status, slug) != (409, "refund-deadline-passed") and (
                answer.status != 200 or answer.body["status"] in ("confirmed", "paying")
            ):
                self.wrong.append(f"giving back was answered {answer}")
            return

    def _await_outcome(self) -> str:
        while (shown := self._show()) == "paying":
            self._pause("the reservation is paying")
        return shown

    def _show(self) -> str:
        answer = self._insist("GET", f"/reservations/{self.reservation_id}")
        if answer.status != 200:
            self.wrong.append(f"a look was answered {answer}")
            return ""
        return str(answer.body["status"])

    def _insist(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        while not (answer := self._ask(method, path, body, headers or {})).is_final:
            self._pause(f"{method} {path} is answered {answer.status} {answer.body}")
        self.answers.one_more()
        return answer

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]) -> Answer:
        from_s = time.time()
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_ANSWER_S_MAX)
        try:
            connection.request(
                method, path, None if body is None else msgspec.json.encode(body), self._with_pass | headers
            )
            response = connection.getresponse()
            return Answer(response.status, msgspec.json.decode(response.read()))
        except (OSError, http.client.HTTPException, msgspec.DecodeError):
            if path.endswith("/payments"):
                self.lost.append(Lost(self.reservation_id, from_s, time.time()))
            return Answer(0, {})
        finally:
            connection.close()

    def _pause(self, why: str) -> None:
        if time.monotonic() > self._until_s:
            raise OutOfPatience(why)
        time.sleep(self.chance.uniform(*_PAUSE_S))


HABITS: dict[str, Callable[[Payer], None]] = {
    "pay": Payer.pay,
    "twins": Payer.pay_twice_at_once,
    "two keys": Payer.pay_with_two_keys,
    "give back": Payer.pay_and_give_back,
    "second thoughts": Payer.pay_and_give_back_at_once,
}

_UNSETTLED = "select count(*) from payment where status in ('pending', 'refunding')"
_HOLD_ALL = """
select hold_seats(p.person, 'hold', 'body', cast(:concert as bigint), p.person, :concert, array[p.number],
                  cast(:ttl_s as integer), cast(:cap_s as integer), 'test')::text
from unnest(cast(:persons as text[]), cast(:numbers as integer[])) as p (person, number)
"""


def hold_for_all(database: Queries, payers: list[Payer], ttl_s: int = 300, cap_s: int = 900) -> None:
    """Hold their one seat for each of these people of one shop, in one trip."""
    shop = payers[0].shop
    rows = database.rows(
        _HOLD_ALL,
        concert=shop.concert_id,
        persons=[shop.shopper(payer.name).person for payer in payers],
        numbers=[payer.seat for payer in payers],
        ttl_s=ttl_s,
        cap_s=cap_s,
    )
    for payer, row in zip(payers, rows, strict=True):
        payer.reservation_id = msgspec.json.decode(row[0])["answer"]["reservation_id"]


def wait_until_settled() -> None:
    """Return when no payment is pending and no refund is owed."""
    wait_for(lambda: primary().value(_UNSETTLED), lambda unsettled: unsettled == 0)


@dataclass
class Pair:
    """One who pays a hold that lapses a second after it was made, and another who waits for the seat."""

    first: Payer
    rival: Payer
    database: Queries

    def live(self) -> None:
        """Both."""
        hold_for_all(self.database, [self.first], ttl_s=1, cap_s=1)
        rival = threading.Thread(target=self._wait_for_the_seat)
        rival.start()
        self.first.live()
        rival.join()

    def _wait_for_the_seat(self) -> None:
        self.rival._until_s = time.monotonic() + _PATIENCE_S
        try:
            while not self.rival.reserve():
                if self.first.status not in ("", *_OPEN):
                    return
                self.rival._pause("the seat is taken")
        except OutOfPatience as fault:
            self.rival.wrong.append(str(fault))
            return
        self.rival.live()


def all_live(lives: list[Callable[[], None]]) -> None:
    """Everybody pays; so many at once, the next as soon as one is done."""
    with ThreadPoolExecutor(AT_ONCE) as crowd:
        for done in [crowd.submit(live) for live in lives]:
            done.result()
