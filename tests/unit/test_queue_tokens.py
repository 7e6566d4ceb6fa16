"""Tokens and passes: what Encore signed is read back, and nothing else is."""

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking.queue import tokens
from booking.queue.people import person_of
from booking.queue.tokens import Pass, PassExpired, PassInvalid, Token, TokenExpired, TokenInvalid

_KEY, _OTHER_KEY = "ab" * 32, "cd" * 32
_ALPHABET = string.ascii_letters + string.digits + "-_."
_LATER = int(time.time()) + 3600

persons = st.text(string.ascii_letters + string.digits + "-_", min_size=22, max_size=22)
numbers = st.integers(1, 2**53)
some_tokens = st.builds(Token, numbers, persons, numbers, st.integers(1, 99), st.just(_LATER))
some_passes = st.builds(
    Pass, numbers, persons, numbers, st.integers(1, 99), numbers, st.from_regex(r"[0-9a-f-]{1,40}", fullmatch=True),
    st.just(_LATER),
)  # fmt: skip


class _Settings:
    person_secret = "ef" * 32

    def __init__(self, token_keys: str) -> None:
        self.token_keys = token_keys


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    def use(token_keys: str) -> None:
        monkeypatch.setattr(tokens, "settings", lambda: _Settings(token_keys))
        monkeypatch.setattr("booking.queue.people.settings", lambda: _Settings(token_keys))

    use(f"k1:{_KEY}")
    return use


@given(some_tokens)
def test_token_is_read_back(token):
    text = tokens.sign_token(token)
    assert tokens.read_token(text) == token
    assert set(text) <= set(_ALPHABET)
    assert tokens.owner_of(text) == token.person


@given(some_passes)
def test_pass_is_read_back_and_is_one_text(shopper):
    text = tokens.sign_pass(shopper)
    assert tokens.read_pass(text) == shopper
    assert tokens.sign_pass(shopper) == text
    assert tokens.owner_of(text) == shopper.person


@given(some_tokens, some_passes)
def test_one_is_not_taken_for_the_other(token, shopper):
    with pytest.raises(PassInvalid):
        tokens.read_pass(tokens.sign_token(token))
    with pytest.raises(TokenInvalid):
        tokens.read_token(tokens.sign_pass(shopper))
    with pytest.raises(PassInvalid):
        tokens.read_pass("p" + tokens.sign_token(token)[1:])


papers = st.one_of(
    some_tokens.map(lambda token: (tokens.sign_token(token), tokens.read_token, TokenInvalid)),
    some_passes.map(lambda shopper: (tokens.sign_pass(shopper), tokens.read_pass, PassInvalid)),
)
"""A signed text, the function that reads it and what that raises for a text that Encore has not signed."""


@given(papers, st.data())
def test_any_altered_character_is_refused(paper, data):
    text, read, invalid = paper
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([letter for letter in _ALPHABET + "=é\x00 " if letter != text[at]]))
    with pytest.raises(invalid):
        read(text[:at] + other + text[at + 1 :])


@given(papers, papers, st.data())
def test_any_field_of_another_paper_is_refused(paper, other, data):
    """Also the signature of one under the fields of another, and the fields of one in another order."""
    text, read, invalid = paper
    fields = text.split(".")
    at = data.draw(st.integers(0, len(fields) - 1))
    tampered = [*fields[:at], data.draw(st.sampled_from(other[0].split("."))), *fields[at + 1 :]]
    for changed in (tampered, data.draw(st.permutations(fields))):
        if changed != fields:
            with pytest.raises(invalid):
                read(".".join(changed))


@given(papers, st.data())
def test_a_field_more_or_less_is_refused(paper, data):
    text, read, invalid = paper
    fields = text.split(".")
    at = data.draw(st.integers(0, len(fields)))
    for changed in (
        [*fields[:at], data.draw(st.text(_ALPHABET, max_size=9)), *fields[at:]],
        fields[:at] + fields[at + 1 :],
    ):
        if changed != fields:
            with pytest.raises(invalid):
                read(".".join(changed))


@given(papers, st.binary(min_size=1, max_size=64), st.text(string.ascii_letters + string.digits, max_size=8))
def test_a_foreign_key_signs_nothing(paper, key, key_id):
    text, read, invalid = paper
    audience, _, *fields, _ = text.split(".")
    for named in (key_id, "k1"):
        signed = ".".join([audience, named, *fields])
        with pytest.raises(invalid):
            read(f"{signed}.{tokens._signature(key, signed)}")


def test_every_other_last_character_is_refused():
    """The last character of 32 bytes in base64 has bits to spare; no second spelling may pass."""
    text = tokens.sign_token(Token(7, "p" * 22, 1, 1, _LATER))
    for letter in set(_ALPHABET) - {text[-1]}:
        with pytest.raises(TokenInvalid):
            tokens.read_token(text[:-1] + letter)


@given(some_tokens, st.data())
def test_cut_and_extended_are_refused(token, data):
    text = tokens.sign_token(token)
    with pytest.raises(TokenInvalid):
        tokens.read_token(text[: data.draw(st.integers(0, len(text) - 1))])
    with pytest.raises(TokenInvalid):
        tokens.read_token(text + data.draw(st.text(_ALPHABET, min_size=1, max_size=500)))


@given(st.one_of(st.none(), st.text(max_size=600)))
def test_nonsense_is_refused(text):
    with pytest.raises(TokenInvalid):
        tokens.read_token(text)
    with pytest.raises(PassInvalid):
        tokens.read_pass(text)


def test_keys_rotate_and_foreign_keys_are_refused(keys):
    old = tokens.sign_token(Token(7, "p" * 22, 1, 1, _LATER))
    keys(f"k2:{_OTHER_KEY},k1:{_KEY}")
    assert tokens.read_token(old).concert_id == 7
    new = tokens.sign_token(Token(7, "p" * 22, 1, 1, _LATER))
    assert new.startswith("t.k2.")
    for known in (f"k1:{_KEY}", f"k2:{_KEY}"):  # an unknown key id; the same id with another key
        keys(known)
        with pytest.raises(TokenInvalid):
            tokens.read_token(new)


def test_expired_papers():
    past = int(time.time()) - 1
    with pytest.raises(TokenExpired):
        tokens.read_token(tokens.sign_token(Token(7, "p" * 22, 1, 1, past)))
    expired = tokens.sign_pass(Pass(7, "p" * 22, 1, 1, 1, "7-1-1", past))
    for read in (tokens.read_pass, tokens.owner_of):
        with pytest.raises(PassExpired):
            read(expired)


@given(st.text(max_size=200))
def test_person_is_22_url_safe_characters(user_id):
    person = person_of(user_id)
    assert len(person) == 22 and set(person) <= set(_ALPHABET) - {"."}
    assert person == person_of(user_id) != person_of(user_id + "x")
