"""Step 1: join the waiting line of a concert."""

from typing import Annotated

from chalice.app import Response
from msgspec import Meta
from msgspec.json import Decoder

from booking.platform.edge import BIGINT_MAX, StepApp, StrictStruct, answer, read_body, user_id_of
from booking.queue import join_line, person_of

app = StepApp("step1_join_queue")


class JoinRequest(StrictStruct):
    concert_id: Annotated[int, Meta(ge=1, le=BIGINT_MAX)]
    user_id: Annotated[str, Meta(min_length=1, max_length=200)]


JOIN_REQUEST = Decoder(JoinRequest)


@app.route("/queue/tokens", methods=["POST"])
def join() -> Response:
    request = read_body(app, JOIN_REQUEST)
    turn = join_line(request.concert_id, person_of(user_id_of(app, request.user_id)))
    return answer(turn.body(), 201 if turn.created else 200, headers={"Cache-Control": "no-store", **turn.headers()})
