"""The HTTP edge that the seven step apps share: bodies in, answers and problems out.

A view parses with ``read_body``, ``bearer``, ``idempotency_key`` or ``path_id``, calls one function of the layer and
returns ``answer(...)``. Whatever it raises becomes an ``application/problem+json`` here, under the route, because
Chalice turns a view's exception into its own 500 before any middleware could see it.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Any

import msgspec
from chalice.app import Chalice, Request, Response

from booking.platform.etags import etag_of, has_already
from booking.platform.problems import (
    BadRequest,
    InternalError,
    NotFound,
    Refusal,
    TooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from booking.platform.settings import settings
from booking.platform.telemetry import CORRELATION_HEADER, count, logger, logs_info, start_correlation

BODY_BYTES_MAX = 16 * 1024
_IDEMPOTENCY_KEY_LENGTH_MAX = 255
BIGINT_MAX = 2**63 - 1
_BIGINT_DIGITS = 19
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

View = Callable[..., Response]


class ApiKeyNeeded(Unauthorized):
    """Only a shop's backend may join the line for people, by its API key."""

    slug = "api-key-needed"


class StepApp(Chalice):
    """A Chalice app whose routes answer problems, log one line a request and carry the correlation id."""

    def __init__(self, name: str) -> None:
        # The name equals the Powertools service, so Chalice's own error lines come out in the same JSON format.
        super().__init__(app_name=name, configure_logs=False)
        self.api.binary_types = []  # every answer is text; Chalice would look for its type among fifteen others

    @property
    def request(self) -> Request:
        """The request that is being answered."""
        assert self.current_request is not None, "there is a request only while a view runs"
        return self.current_request

    def route(self, path: str, **options: Any) -> Callable[[View], View]:
        """Register a view as Chalice does. Content types are checked by ``read_body``, which answers a problem."""
        register = super().route(path, content_types=[], **options)
        return lambda view: register(_answering(self, view))


class _TextResponse(Response):
    """A response whose body is text. Chalice would sort its headers, and look among them for a binary content type."""

    def to_dict(self, binary_types: object = None) -> dict[str, Any]:
        """What Lambda returns to API Gateway."""
        return {"headers": self.headers, "multiValueHeaders": {}, "statusCode": self.status_code, "body": self.body}


class StrictStruct(msgspec.Struct, forbid_unknown_fields=True):
    """Base of the request bodies: a field that is not known is refused, never ignored."""


def answer(body: Any, status: int = 200, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """A JSON answer. ``body`` is encoded unless it is JSON text already."""
    text = body if isinstance(body, str) else encode(body)
    return _TextResponse(body=text, status_code=status, headers={"Content-Type": "application/json", **headers})


def answer_with_etag(
    app: StepApp, body: str, headers: Mapping[str, str] = NO_HEADERS, etag: str | None = None
) -> Response:
    """A JSON answer with its ETag, the hash of its body unless given; 304 without a body when the caller has that."""
    etag = etag or etag_of(body)
    if has_already(app.request.headers.get("if-none-match", ""), etag):
        return _TextResponse(body="", status_code=304, headers={"ETag": etag, **headers})
    return answer(body, headers={"ETag": etag, **headers})


def encode(body: Any) -> str:
    """The body as compact JSON text."""
    return msgspec.json.encode(body).decode()


def no_content() -> Response:
    """An answer without a body (204)."""
    return _TextResponse(body="", status_code=204, headers={})


def read_body[Body: StrictStruct](app: StepApp, decoder: msgspec.json.Decoder[Body]) -> Body:
    """Decode the request's JSON body.

    ``decoder`` is made when its module is imported: msgspec completes what it knows of a type at first use, and another
    thread that uses the type meanwhile ends the process (segmentation fault).

    Raises UnsupportedMediaType, TooLarge, and BadRequest with the path of the field that is wrong.
    """
    request = app.request
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"the body is declared as {media_type[:80]!r}")
    raw = request.raw_body
    if len(raw) > BODY_BYTES_MAX:
        raise TooLarge(f"a body may have {BODY_BYTES_MAX} bytes, this one has {len(raw)}", bytes_max=BODY_BYTES_MAX)
    if not raw:
        raise BadRequest("a JSON body is needed")
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as fault:
        raise BadRequest(str(fault)) from fault
    except (UnicodeDecodeError, RecursionError) as fault:
        raise BadRequest("the body is not JSON in UTF-8") from fault


def request_hash(*asked: Any) -> str:
    """A hash of what a request asks for: its decoded body and path parameters, so that spelling makes no difference.

    The route is not part of it: idempotency keys are kept apart by route already.
    """
    return hashlib.blake2b(msgspec.json.encode(asked), digest_size=16).hexdigest()


def bearer(app: StepApp) -> str | None:
    """The token of the Authorization header, None where there is none."""
    scheme, _, credentials = app.request.headers.get("authorization", "").partition(" ")
    return (credentials.strip() or None) if scheme.lower() == "bearer" else None


def idempotency_key(app: StepApp) -> str:
    """The Idempotency-Key header. Raises BadRequest when it is missing, empty, too long or not printable ASCII."""
    key: str = app.request.headers.get("idempotency-key", "").strip()
    if not key:
        raise BadRequest("the header Idempotency-Key is needed: a new random value for each purchase, kept for retries")
    if len(key) > _IDEMPOTENCY_KEY_LENGTH_MAX or not (key.isascii() and key.isprintable()):
        raise BadRequest(f"Idempotency-Key must be at most {_IDEMPOTENCY_KEY_LENGTH_MAX} printable ASCII characters")
    return key


def user_id_of(app: StepApp, named_in_body: str) -> str:
    """Who the caller is, by the setting ``edge_trust``.

    Raises ApiKeyNeeded where only a shop's backend may name people, BadRequest where the authorizer names nobody: a
    deployment whose gateway does not check what the setting promises refuses everybody.
    """
    context = app.request.context
    match settings().edge_trust:
        case "open":
            return named_in_body
        case "api_key":
            if not (context.get("identity") or {}).get("apiKey"):
                raise ApiKeyNeeded("send the header x-api-key")
            return named_in_body
        case _:
            authorizer = context.get("authorizer") or {}
            subject = (authorizer.get("claims") or {}).get("sub") or authorizer.get("sub")
            if not subject:
                raise BadRequest("the authorizer in front of this API names no subject")
            return str(subject)


def path_id(text: str, unknown: type[NotFound]) -> int:
    """A positive integer of the path. Raises ``unknown`` for anything else: there is no such thing."""
    if text.isascii() and text.isdigit() and len(text) <= _BIGINT_DIGITS and 0 < int(text) <= BIGINT_MAX:
        return int(text)
    raise unknown(f"no {text[:80]!r} here")


def path_uuid(text: str, unknown: type[NotFound]) -> str:
    """A UUID of the path in its canonical form. Raises ``unknown`` for anything else."""
    try:
        return str(uuid.UUID(text))
    except ValueError as fault:
        raise unknown() from fault


def _answering(app: StepApp, view: View) -> View:
    @wraps(view)
    def answered(**path_parameters: str) -> Response:
        started_s = time.perf_counter()
        request = app.request
        correlation = start_correlation(request.headers.get(CORRELATION_HEADER))
        try:
            response = view(**path_parameters)
        except Refusal as refusal:
            response = _problem(refusal)
        except Exception:
            logger().exception("unexpected fault", correlation_id=correlation, route=request.context["resourcePath"])
            response = _problem(InternalError(f"correlation id {correlation}"))
        response.headers["X-Correlation-Id"] = correlation
        _record(app, response, time.perf_counter() - started_s, correlation)
        return response

    return answered


def _problem(refusal: Refusal) -> Response:
    return _TextResponse(body=refusal.body(), status_code=refusal.status, headers={**refusal.headers()})


def _record(app: StepApp, response: Response, duration_s: float, correlation: str) -> None:
    if logs_info():
        request = app.request
        logger().info(
            "answered",
            step=app.app_name,
            method=request.method,
            route=request.context["resourcePath"],
            status=response.status_code,
            duration_ms=round(duration_s * 1000, 2),
            correlation_id=correlation,
        )
    count("Requests", step=app.app_name, status=f"{response.status_code // 100}xx")
