"""Step 4: the schedules of a concert, with seats left."""

from chalice.app import Response

from booking.catalog import schedules
from booking.catalog.concerts import ConcertUnknown
from booking.catalog.schedules import CACHE_CONTROL
from booking.platform.edge import StepApp, answer_with_etag, path_id

app = StepApp("step4_schedules")


@app.route("/concerts/{concert_id}/schedules")
def list_schedules(concert_id: str) -> Response:
    listed = schedules.list_schedules(path_id(concert_id, ConcertUnknown))
    return answer_with_etag(app, listed, {"Cache-Control": CACHE_CONTROL})
