"""Step 5: the seat map of a schedule, for somebody with a pass of its concert."""

from chalice.app import Response

from booking import seats
from booking.platform.edge import StepApp, answer_with_etag, bearer, path_id
from booking.queue import read_pass
from booking.seats.problems import ScheduleUnknown

app = StepApp("step5_seats")


@app.route("/schedules/{schedule_id}/seats")
def show_seats(schedule_id: str) -> Response:
    shopper = read_pass(bearer(app))
    seat_map = seats.show_seat_map(path_id(schedule_id, ScheduleUnknown), shopper.concert_id)
    return answer_with_etag(app, seat_map.body.decode(), {"Cache-Control": "private, no-cache"}, seat_map.etag)
