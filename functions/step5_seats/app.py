"""Step 5: the seat map of a schedule, for somebody with a pass of its concert."""

from chalice.app import Response

from booking import seats
from booking.platform.edge import StepApp, answer, bearer, path_id
from booking.platform.etags import has_already
from booking.queue import read_pass
from booking.seats.problems import ScheduleUnknown

app = StepApp("step5_seats")


@app.route("/schedules/{schedule_id}/seats")
def show_seats(schedule_id: str) -> Response:
    shopper = read_pass(bearer(app))
    seat_map = seats.show_seat_map(path_id(schedule_id, ScheduleUnknown), shopper.concert_id)
    headers = {"ETag": seat_map.etag, "Cache-Control": "private, no-cache"}
    if has_already(app.request.headers.get("if-none-match", ""), seat_map.etag):
        return Response(body="", status_code=304, headers={**headers})
    return answer(seat_map.body.decode(), headers=headers)
