"""Cursors and page sizes: what comes back is read, anything else is refused, nothing crashes."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking.catalog.concerts import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, _decode_cursor, _encode_cursor, _page_size
from booking.platform.problems import BadRequest


@given(st.integers(min_value=1, max_value=2**63 - 1))
def test_a_cursor_is_read_back(concert_id: int) -> None:
    assert _decode_cursor(_encode_cursor(concert_id)) == concert_id


@given(st.text(max_size=200))
def test_any_other_text_is_refused_or_a_cursor(text: str) -> None:
    with suppress(BadRequest):
        assert _decode_cursor(text) >= 0


@given(st.text(max_size=30))
def test_a_page_size_is_in_range_or_refused(text: str) -> None:
    with suppress(BadRequest):
        assert 1 <= _page_size(text) <= PAGE_SIZE_MAX


def test_no_size_is_the_default() -> None:
    assert _page_size(None) == PAGE_SIZE_DEFAULT
    with pytest.raises(BadRequest):
        _page_size("101")
