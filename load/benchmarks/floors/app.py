"""What a step is measured against: a Chalice route that does nothing, one GET of Redis, or one bare Lua call.

As cheap as Chalice allows: no logs, no metrics, no comparing of content types. Redis is asked by the same client that
the steps use.
"""

from chalice.app import Chalice, Response

from booking.platform.redis import Script, redis

BODY_KEY = "bench:body"
_JSON: dict[str, str | list[str]] = {"Content-Type": "application/json"}
_SCRIPT = Script("return redis.call('GET', KEYS[1])")

app = Chalice(app_name="floors", configure_logs=False)
app.api.binary_types = []


@app.route("/floors/empty", content_types=[])
def empty() -> Response:
    return Response(body="{}", status_code=200, headers=_JSON)


@app.route("/floors/redis-get", content_types=[])
def redis_get() -> Response:
    """One GET of a body as long as a seat map, handed on as it is."""
    body: bytes = redis("cache").execute_command("GET", BODY_KEY)
    return Response(body=body.decode(), status_code=200, headers=_JSON)


@app.route("/floors/redis-lua", content_types=[])
def redis_lua() -> Response:
    """One script call that reads one key that is not there."""
    _SCRIPT(redis("queue"), ["bench:none"], [])
    return Response(body="{}", status_code=200, headers=_JSON)
