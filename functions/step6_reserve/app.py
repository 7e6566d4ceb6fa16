"""Step 6: reserve seats; show a reservation to its owner; give it back."""

from typing import Annotated

from chalice.app import Response
from msgspec import Meta

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


class ReserveRequest(StrictStruct):
    schedule_id: Annotated[int, Meta(ge=1, le=BIGINT_MAX)]
    seats: list[Annotated[int, Meta(ge=1, le=2**31 - 1)]]


@app.route("/reservations", methods=["POST"])
def reserve() -> Response:
    shopper, key = read_pass(bearer(app)), idempotency_key(app)
    request = read_body(app, ReserveRequest)
    reservation = seats.hold_seats(Attempt(shopper, key, request_hash(request)), request.schedule_id, request.seats)
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
