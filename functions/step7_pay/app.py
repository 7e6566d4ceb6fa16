"""Step 7: pay for a reservation."""

from typing import Annotated

from chalice.app import Response
from msgspec import Meta
from msgspec.json import Decoder

from booking import payment, seats
from booking.payment.payments import POLL_AFTER_S
from booking.platform.edge import (
    StepApp,
    StrictStruct,
    answer,
    bearer,
    idempotency_key,
    path_uuid,
    read_body,
    request_hash,
)
from booking.queue import read_pass
from booking.seats.holds import Attempt

app = StepApp("step7_pay")


class PayRequest(StrictStruct):
    method: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z")]


PAY_REQUEST = Decoder(PayRequest)


@app.route("/reservations/{reservation_id}/payments", methods=["POST"])
def pay(reservation_id: str) -> Response:
    shopper, key = read_pass(bearer(app)), idempotency_key(app)
    request = read_body(app, PAY_REQUEST)
    reservation_id = path_uuid(reservation_id, seats.ReservationUnknown)
    paid = payment.pay(Attempt(shopper, key, request_hash(reservation_id, request)), reservation_id, request.method)
    if paid.pending:
        return answer(paid.payment, 202, {"Retry-After": str(POLL_AFTER_S)})
    return answer(paid.payment, 201)
