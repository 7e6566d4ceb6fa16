"""A concert of a test's own and people who shop there, by the functions of the layer that the steps call."""

import itertools
import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from booking import payment, seats
from booking.payment import PaidOrPending
from booking.platform.postgres import primary
from booking.platform.redis import redis
from booking.platform.redis_keys import seat_map_keys
from booking.queue import Pass, person_of
from booking.seats.holds import Attempt
from support.replica import wait_for_replica

PRICE = 1_000
_concert_ids = itertools.count((os.getpid() % 10_000) * 1_000_000 + int(time.time()) % 1_000 * 1_000)

_ADD = """
with added as (
    insert into concert (id, title, artist, venue, sales_open_at, refund_until, seats_per_person_max)
    values (cast(:id as bigint), 'Test', 'Test', 'Test', now() - interval '1 hour', now() + interval '1 hour',
            cast(:limit as smallint))
), scheduled as (
    insert into schedule (id, concert_id, starts_at) values (cast(:id as bigint), :id, now() + interval '2 hours')
), counted as (
    insert into schedule_sales (schedule_id, concert_id, seats_total) values (:id, :id, cast(:seats as integer))
)
insert into seat (schedule_id, number, section, row_label, price)
select :id, number, 'A', '1', cast(:price as bigint) from generate_series(1, cast(:seats as integer)) number
"""


def new_key() -> str:
    """An idempotency key that nobody had before."""
    return uuid.uuid4().hex


@dataclass
class Shop:
    """A concert with one schedule of the same id and a few seats."""

    concert_id: int

    @classmethod
    def open(cls, seats: int = 10, limit: int = 4, *, wait: bool = True) -> "Shop":
        """``wait``: until the replica knows of it."""
        concert_id = next(_concert_ids)
        primary().rows(_ADD, id=concert_id, limit=limit, seats=seats, price=PRICE)
        if wait:
            wait_for_replica()
        return cls(concert_id)

    def shopper(self, name: str = "someone", expires_in_s: int = 600) -> Pass:
        """A pass such as the line would give: signed papers are the line's business, not the shop's."""
        person = person_of(f"{self.concert_id} {name}")
        return Pass(self.concert_id, person, 1, 1, 1, f"{self.concert_id}-{name}", int(time.time()) + expires_in_s)

    def attempt(self, name: str, key: str | None = None, body: str = "body") -> Attempt:
        return Attempt(self.shopper(name), key or new_key(), body)

    def hold(self, numbers: list[int], name: str = "someone", key: str | None = None) -> dict[str, Any]:
        return seats.hold_seats(self.attempt(name, key, str(numbers)), self.concert_id, numbers)

    def hold_best(
        self, count: int, name: str = "someone", key: str | None = None, section: str | None = None
    ) -> dict[str, Any]:
        attempt = self.attempt(name, key, f"best {count} {section}")
        return seats.hold_best_seats(attempt, self.concert_id, count, section)

    def arrange(self, *rows: tuple[str, str, int]) -> None:
        """Give the seats sections and rows, in number order: ``("A", "1", 10)`` is a row of ten."""
        first = 1
        for section, row, seats_each in rows:
            primary().rows(
                "update seat set section = :section, row_label = :row"
                " where schedule_id = :id and number >= cast(:first as integer) and number < cast(:end as integer)",
                section=section,
                row=row,
                id=self.concert_id,
                first=first,
                end=first + seats_each,
            )
            first += seats_each

    def pay(
        self, reservation: dict[str, Any], name: str = "someone", key: str | None = None, method: str = "card"
    ) -> PaidOrPending:
        return payment.pay(self.attempt(name, key, method), reservation["reservation_id"], method)

    def show(self, reservation: dict[str, Any], name: str = "someone") -> dict[str, Any]:
        return seats.show_reservation(reservation["reservation_id"], self.shopper(name).person)

    def map_state(self, number: int) -> str:
        """A seat's state as step 5 shows it."""
        shown = json.loads(seats.show_seat_map(self.concert_id, self.concert_id).body)["seats"]
        return next(seat["state"] for seat in shown if seat["number"] == number)

    def seat(self, number: int) -> dict[str, Any]:
        [row] = primary().rows(
            "select state, version, held_until, reservation_id::text from seat"
            " where schedule_id = :schedule_id and number = :number",
            schedule_id=self.concert_id,
            number=number,
        )
        return dict(zip(("state", "version", "held_until", "reservation_id"), row, strict=True))

    def ledger(self, number: int) -> list[str]:
        """The events of a seat, oldest first."""
        rows = primary().rows(
            "select event from seat_ledger where schedule_id = :schedule_id and number = :number order by version",
            schedule_id=self.concert_id,
            number=number,
        )
        return [row[0] for row in rows]

    def events(self, reservation: dict[str, Any]) -> list[str]:
        """The types of a reservation's events in the outbox, in order."""
        rows = primary().rows(
            "select type from outbox where reservation_id = cast(:id as uuid) order by seq",
            id=reservation["reservation_id"],
        )
        return [row[0] for row in rows]

    def lapse(self, reservation: dict[str, Any]) -> None:
        """Let the hold's time be over: move the whole reservation and its ledger an hour into the past.

        Behind the seats' versions, so the replica must have it before anybody looks.
        """
        self.let_pass(reservation, 3_600)

    def lapse_within_cap(self, reservation: dict[str, Any]) -> None:
        """Let the hold's time be over but not its cap: as long payments do, minutes after the hold was made."""
        self.let_pass(reservation, 360)

    def pass_time(self, seconds: int) -> None:
        """Let time pass for all of the shop: move its reservations, seats, payments and ledger into the past.

        A replica may show it a moment later: nothing waits for that here.
        """
        primary().rows(
            """
            do $$ begin
                alter table seat_ledger disable trigger append_only;
                update reservation set created_at = created_at - interval '%s', expires_at = expires_at - interval '%s',
                    hard_cap_at = hard_cap_at - interval '%s', closed_at = closed_at - interval '%s'
                    where schedule_id = %d;
                update seat set held_until = held_until - interval '%s' where schedule_id = %d;
                update seat_ledger set held_until = held_until - interval '%s', at = at - interval '%s'
                    where schedule_id = %d;
                update payment p set created_at = p.created_at - interval '%s',
                    deadline_at = p.deadline_at - interval '%s', settled_at = p.settled_at - interval '%s',
                    pending_at = p.pending_at - interval '%s', turned_at = p.turned_at - interval '%s',
                    captured_at = p.captured_at - interval '%s'
                    from reservation r where r.id = p.reservation_id and r.schedule_id = %d;
                alter table seat_ledger enable trigger append_only;
            end $$
            """.replace("%s", f"{seconds} seconds").replace("%d", str(self.concert_id))
        )
        # Their versions have not changed, and a cached map is true by the real clock.
        redis("cache").delete(*seat_map_keys(self.concert_id))

    def let_pass(self, reservation: dict[str, Any], seconds: int) -> None:
        """Let time pass for a reservation: everything of it happened so much earlier. The replica has it then."""
        lapse(primary().rows, reservation["reservation_id"], f"{seconds} seconds")
        wait_for_replica()


def confirm_without_gateway(shop: Shop, numbers: list[int], name: str = "someone") -> str:
    """A confirmed reservation in the database alone; no gateway's book knows of it."""
    held = shop.hold(numbers, name)
    settle_without_gateway(begin_without_gateway(shop, held, name)["payment"]["payment_id"], "captured")
    return str(held["reservation_id"])


def begin_without_gateway(
    shop: Shop, held: dict[str, Any], name: str = "someone", *, key: str | None = None, deadline_s: int = 120
) -> dict[str, Any]:
    """The database's part of paying: what begin_payment answers. No payment firm is asked."""
    begun: dict[str, Any] = primary().document(
        "select begin_payment(:person, :key, 'x', :concert, cast(:id as uuid), 'danal', 'card', :deadline_s)::text",
        person=shop.shopper(name).person,
        key=key or new_key(),
        concert=shop.concert_id,
        id=held["reservation_id"],
        deadline_s=deadline_s,
    )
    return begun


def settle_without_gateway(payment_id: str, outcome: str, hold_after_decline_s: int = 60) -> None:
    """What follows from what a payment firm is said to have answered."""
    primary().rows(
        "select settle_payment(cast(:id as uuid), 'danal', :outcome, :outcome, :hold_after_decline_s, 'test')",
        id=payment_id,
        outcome=outcome,
        hold_after_decline_s=hold_after_decline_s,
    )


def lapse(run: Callable[[str], object], reservation_id: str, ago: str = "1 hour") -> None:
    """See ``Shop.lapse``. The append-only rule is lifted for this one statement, as only a test's owner may."""
    run(
        """
        do $$ begin
            alter table seat_ledger disable trigger append_only;
            update reservation set created_at = created_at - interval '1 hour',
                expires_at = expires_at - interval '1 hour', hard_cap_at = hard_cap_at - interval '1 hour'
                where id = '%s';
            update seat set held_until = held_until - interval '1 hour' where reservation_id = '%s';
            update seat_ledger set held_until = held_until - interval '1 hour', at = at - interval '1 hour'
                where reservation_id = '%s';
            update payment set created_at = created_at - interval '1 hour', pending_at = pending_at - interval '1 hour',
                turned_at = turned_at - interval '1 hour', deadline_at = deadline_at - interval '1 hour'
                where reservation_id = '%s';
            alter table seat_ledger enable trigger append_only;
        end $$
        """.replace("%s", str(uuid.UUID(reservation_id))).replace("1 hour", ago)
    )
