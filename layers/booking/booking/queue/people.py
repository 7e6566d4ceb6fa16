"""Who a person is to Encore: a keyed hash of ``user_id``, never the ``user_id`` itself."""

import hmac
from base64 import urlsafe_b64encode
from functools import cache

from booking.platform.settings import settings


def person_of(user_id: str) -> str:
    """The 22 URL-safe characters that stand for ``user_id`` wherever a person is a key, a log or an event field."""
    digest = hmac.digest(_secret(settings().person_secret), user_id.encode(), "sha256")
    return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode("ascii")


@cache
def _secret(hex_text: str) -> bytes:
    return bytes.fromhex(hex_text)
