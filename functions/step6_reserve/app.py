"""Step 6: reserve seats; show a reservation to its owner; give it back."""

from typing import Annotated

from chalice.app import Response
from msgspec import UNSET, Meta, UnsetType
from msgspec.json import Decoder

from booking import payment, seats
from booking.platform.edge import (
    BIGINT_MAX,
    StepApp,
    StrictStruct,
    answer,
    bearer,
    idempotency_key,
    path_uuid,
    read_body,
    request_hash,
)
from booking.queue import owner_of, read_pass
from booking.seats.holds import Attempt

app = StepApp("step6_reserve")


SeatNumber = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Count = Annotated[int, Meta(ge=1, le=seats.SEATS_PER_REQUEST_MAX)]
Section = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,64}\Z")]


class ReserveRequest(StrictStruct):
    """These seats, or so many of the best ones. What is not said is no part of the request's hash."""

    schedule_id: Annotated[int, Meta(ge=1, le=BIGINT_MAX)]
    seats: list[SeatNumber] | UnsetType = UNSET
    best: Count | UnsetType = UNSET
    section: Section | UnsetType = UNSET

    def __post_init__(self) -> None:
        if (self.seats is UNSET) == (self.best is UNSET):
            raise ValueError("give either `seats`, a list of numbers, or `best`, how many")
        if self.section is not UNSET and self.best is UNSET:
            raise ValueError("`section` goes with `best`")


RESERVE_REQUEST = Decoder(ReserveRequest)


@app.route("/reservations", methods=["POST"])
def reserve() -> Response:
    shopper, key = read_pass(bearer(app)), idempotency_key(app)
    request = read_body(app, RESERVE_REQUEST)
    attempt = Attempt(shopper, key, request_hash(request))
    if request.best is not UNSET:
        section = None if request.section is UNSET else request.section
        reservation = seats.hold_best_seats(attempt, request.schedule_id, request.best, section)
    else:
        reservation = seats.hold_seats(attempt, request.schedule_id, request.seats or [])
    return answer(reservation, 201, {"Location": f"/reservations/{reservation['reservation_id']}"})


@app.route("/reservations/{reservation_id}", methods=["GET"])
def show_reservation(reservation_id: str) -> Response:
    person = owner_of(bearer(app))
    reservation_id = path_uuid(reservation_id, seats.ReservationUnknown)
    return answer(payment.show_settled(reservation_id, person), headers={"Cache-Control": "private, no-store"})


@app.route("/reservations/{reservation_id}", methods=["DELETE"])
def cancel_reservation(reservation_id: str) -> Response:
    person = owner_of(bearer(app))
    return answer(payment.cancel_reservation(path_uuid(reservation_id, seats.ReservationUnknown), person))
