"""Step 2: where the holder of a token is in the waiting line; leaving it."""

from chalice.app import Response

from booking.platform.edge import StepApp, answer, bearer, no_content
from booking.queue import leave_line, position

app = StepApp("step2_queue_position")


@app.route("/queue/tokens/current", methods=["GET"])
def show_position() -> Response:
    turn = position(bearer(app))
    return answer(turn.body(), headers={"Cache-Control": "no-store", **turn.headers()})


@app.route("/queue/tokens/current", methods=["DELETE"])
def leave() -> Response:
    leave_line(bearer(app))
    return no_content()
