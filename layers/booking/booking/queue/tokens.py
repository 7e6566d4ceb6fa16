"""The signed papers of a turn: the token (a place in the line) and the pass (leave to shop).

Both are URL-safe ASCII fields joined by dots, the last an HMAC-SHA256 over all the text before it::

    token  t.<key id>.<concert>.<person>.<place>.<epoch>.<expires at>.<signature>
    pass   p.<key id>.<concert>.<person>.<place>.<epoch>.<number>.<pass id>.<expires at>.<signature>

The first field is the audience and is signed like the rest: a pass is no token and a token no pass. Any key of
``settings().token_keys`` verifies and the first signs, so keys rotate without throwing anybody out. The text is
compared as it stands, never decoded first: there is exactly one spelling of a valid paper.
"""

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache

import msgspec

from booking.platform.problems import Unauthorized
from booking.platform.settings import settings

_TOKEN_AUDIENCE = "t"  # noqa: S105 - no password
_PASS_AUDIENCE = "p"  # noqa: S105 - no password
_LENGTH_MAX = 400


class TokenInvalid(Unauthorized):
    """This is not a valid token of the waiting line."""

    slug = "token-invalid"


class TokenExpired(Unauthorized):
    """The token has expired, please join the line again."""

    slug = "token-expired"


class PassInvalid(Unauthorized):
    """This is not a valid pass."""

    slug = "pass-invalid"


class PassExpired(Unauthorized):
    """The pass has expired, please join the line again."""

    slug = "pass-expired"


class Token(msgspec.Struct, frozen=True):
    """A person's place in a concert's line, in one epoch of it. ``expires_at`` is a Unix time in seconds."""

    concert_id: int
    person: str
    place: int
    epoch: int
    expires_at: int


class Pass(msgspec.Struct, frozen=True):
    """Leave to shop at a concert until ``expires_at`` (Unix time, seconds), as the holder of admission ``number``."""

    concert_id: int
    person: str
    place: int
    epoch: int
    number: int
    pass_id: str
    expires_at: int


def sign_token(token: Token) -> str:
    """The token as text for its owner."""
    return _sign(_TOKEN_AUDIENCE, f"{token.concert_id}.{token.person}.{token.place}.{token.epoch}.{token.expires_at}")


def sign_pass(shopper: Pass) -> str:
    """The pass as text for its owner; the same pass is always the same text while its key signs."""
    return _sign(
        _PASS_AUDIENCE,
        f"{shopper.concert_id}.{shopper.person}.{shopper.place}.{shopper.epoch}"
        f".{shopper.number}.{shopper.pass_id}.{shopper.expires_at}",
    )


def read_token(text: str | None) -> Token:
    """The token that ``text`` is. Raises TokenInvalid (also for None), or TokenExpired when it was one."""
    fields = _verified(_TOKEN_AUDIENCE, text)
    if fields is None:
        raise TokenInvalid(None if text else "the token goes into the header: Authorization: Bearer <token>")
    concert_id, person, place, epoch, expires_at = fields
    token = Token(int(concert_id), person, int(place), int(epoch), int(expires_at))
    if token.expires_at <= time.time():
        raise TokenExpired
    return token


def read_pass(text: str | None) -> Pass:
    """The pass that ``text`` is: who shops, and where. Raises PassInvalid (also for None) or PassExpired."""
    fields = _verified(_PASS_AUDIENCE, text)
    if fields is None:
        raise PassInvalid(None if text else "the pass goes into the header: Authorization: Bearer <pass>")
    concert_id, person, place, epoch, number, pass_id, expires_at = fields
    shopper = Pass(int(concert_id), person, int(place), int(epoch), int(number), pass_id, int(expires_at))
    if shopper.expires_at <= time.time():
        raise PassExpired
    return shopper


def owner_of(text: str | None) -> str:
    """The person whose token or pass ``text`` is, for what may be seen with either.

    An expired pass proves nothing any more; the token, which lives longer, still does. Raises as ``read_pass`` for what
    looks like a pass and as ``read_token`` for the rest.
    """
    if text and text.startswith(_PASS_AUDIENCE + "."):
        return read_pass(text).person
    return read_token(text).person


def _sign(audience: str, fields: str) -> str:
    key_id, key = next(iter(_keys(settings().token_keys).items()))
    signed = f"{audience}.{key_id}.{fields}"
    return f"{signed}.{_signature(key, signed)}"


def _verified(audience: str, text: str | None) -> list[str] | None:
    """The signed fields of ``text``, None unless its audience and its signature are right."""
    if text is None or len(text) > _LENGTH_MAX or not text.isascii():
        return None
    signed, _, signature = text.rpartition(".")
    claimed_audience, *fields = signed.split(".")
    if claimed_audience != audience or not fields:
        return None
    key = _keys(settings().token_keys).get(fields[0])
    if key is None or not hmac.compare_digest(_signature(key, signed), signature):
        return None
    return fields[1:]


def _signature(key: bytes, signed: str) -> str:
    return urlsafe_b64encode(hmac.digest(key, signed.encode("ascii"), "sha256")).rstrip(b"=").decode("ascii")


@cache
def _keys(text: str) -> Mapping[str, bytes]:
    """Key id → key, in the order of the setting ``kid:hex,kid:hex``."""
    return {key_id: bytes.fromhex(key) for key_id, key in (pair.split(":") for pair in text.split(","))}
