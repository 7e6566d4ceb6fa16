"""Step 3: the concerts on sale and to come."""

from collections.abc import Mapping

from chalice.app import Response

from booking.catalog import concerts
from booking.catalog.concerts import CACHE_CONTROL, ConcertUnknown
from booking.platform.edge import StepApp, answer_with_etag, encode, path_id

app = StepApp("step3_concerts")


@app.route("/concerts")
def list_concerts() -> Response:
    query: Mapping[str, str] = app.request.query_params or {}
    page = concerts.list_concerts(query.get("limit"), query.get("cursor"), query.get("order"))
    return answer_with_etag(app, encode(page), {"Cache-Control": CACHE_CONTROL})


@app.route("/concerts/{concert_id}")
def show_concert(concert_id: str) -> Response:
    concert = concerts.find_concert(path_id(concert_id, ConcertUnknown))
    return answer_with_etag(app, encode(concert), {"Cache-Control": CACHE_CONTROL})
