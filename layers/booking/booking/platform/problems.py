"""Refusals: requests that Encore understood and will not carry out, as RFC 9457 problems.

A refusal is a class beside the rule it belongs to. The first line of its docstring is the problem's title, ``slug`` the
last part of its stable ``type``, and its kind (the classes of this module) decides the HTTP status. Nothing is changed
by a request that is refused.
"""

from typing import Any, ClassVar

import msgspec

CONTENT_TYPE = "application/problem+json"


class Refusal(Exception):
    """The request was refused."""

    status: ClassVar[int]
    slug: ClassVar[str]

    def __init__(self, detail: str | None = None, *, retry_after_s: int | None = None, **members: Any) -> None:
        """``members`` are added to the problem's body; ``retry_after_s`` becomes the Retry-After header."""
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.members = members
        super().__init__(detail or self.title())

    @classmethod
    def title(cls) -> str:
        """The first line of the class's docstring, without its full stop."""
        return (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")

    def body(self) -> str:
        """The problem document as JSON text."""
        problem = {"type": f"/problems/{self.slug}", "title": self.title(), "status": self.status}
        if self.detail:
            problem["detail"] = self.detail
        return msgspec.json.encode(problem | self.members).decode()

    def headers(self) -> dict[str, str]:
        """The headers that go with the problem."""
        headers = {"Content-Type": CONTENT_TYPE}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


class BadRequest(Refusal):
    """The request is malformed."""

    status = 400
    slug = "bad-request"


class Unauthorized(Refusal):
    """A valid token or pass is needed."""

    status = 401
    slug = "unauthorized"


class PaymentRequired(Refusal):
    """The payment was declined."""

    status = 402
    slug = "payment-declined"


class Forbidden(Refusal):
    """That is not allowed with this token or pass."""

    status = 403
    slug = "forbidden"


class NotFound(Refusal):
    """There is no such thing."""

    status = 404
    slug = "not-found"


class Conflict(Refusal):
    """The present state does not allow that."""

    status = 409
    slug = "conflict"


class Gone(Refusal):
    """That is over."""

    status = 410
    slug = "gone"


class TooLarge(Refusal):
    """The request body is too large."""

    status = 413
    slug = "body-too-large"


class UnsupportedMediaType(Refusal):
    """The request body must be application/json."""

    status = 415
    slug = "unsupported-media-type"


class Unprocessable(Refusal):
    """The request is well formed and contradicts an earlier one."""

    status = 422
    slug = "unprocessable"


class Unavailable(Refusal):
    """A part of Encore is away for the moment; nothing was changed, please try again."""

    status = 503
    slug = "unavailable"

    def __init__(self, detail: str | None = None, *, retry_after_s: int | None = 2, **members: Any) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **members)


class InternalError(Refusal):
    """Something went wrong on our side."""

    status = 500
    slug = "internal-error"
