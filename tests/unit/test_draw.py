"""The draw's key and order, as scripts/verify-draw recomputes them."""

import hashlib
import string

from hypothesis import given
from hypothesis import strategies as st

from booking.operations.draw import draw_key, order_of

seeds = st.text("0123456789abcdef", min_size=64, max_size=64)
people = st.lists(st.text(string.ascii_letters + string.digits + "-_", min_size=22, max_size=22), max_size=20)


@given(seeds, people)
def test_the_order_is_the_same_for_every_order_of_the_list(seed: str, persons: list[str]) -> None:
    order = order_of(seed, persons)
    assert order == order_of(seed, reversed(persons + persons))
    assert [key for key, _ in order] == sorted(key for key, _ in order)
    assert {person for _, person in order} == set(persons)


def test_the_key_is_what_the_help_says() -> None:
    bits = hashlib.sha1(b"0a1b:somebody", usedforsecurity=False).digest()
    assert draw_key("0a1b", "somebody") == int.from_bytes(bits) >> (160 - 50)
