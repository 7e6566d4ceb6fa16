"""ETags: the hash of a body, and whether the caller has that body already."""

import hashlib


def etag_of(body: str) -> str:
    """The strong ETag of a body, quotes included."""
    return f'"{hashlib.blake2b(body.encode(), digest_size=12).hexdigest()}"'


def has_already(if_none_match: str, etag: str) -> bool:
    """Whether the header ``If-None-Match`` (empty when there is none) names this ETag; weak ones count (RFC 9110)."""
    known = if_none_match.strip()
    return known == "*" or etag in (tag.strip().removeprefix("W/") for tag in known.split(","))
