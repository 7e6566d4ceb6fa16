"""ETags: which headers say that the caller has the body already."""

import pytest

from booking.platform.etags import etag_of, has_already


def test_an_etag_is_quoted_and_follows_the_body() -> None:
    assert etag_of("a") == etag_of("a") != etag_of("b")
    assert etag_of("a")[0] == etag_of("a")[-1] == '"'


@pytest.mark.parametrize(
    ("if_none_match", "has"),
    [("", False), ('"x"', True), ('W/"x"', True), ('"y", W/"x"', True), ("*", True), ('"y"', False), ("x", False)],
)
def test_the_callers_etags_are_compared(if_none_match: str, has: bool) -> None:
    assert has_already(if_none_match, '"x"') is has
