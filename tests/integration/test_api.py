"""The API's contract, through the template's routes and the functions' own code: shapes, refusals, headers.

The fast gateway's WSGI application is called in process, on real servers.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest

from booking.platform.postgres import primary
from booking.queue.tokens import Pass, sign_pass
from support.client import Person, assert_problem
from support.gateways import SimulatedGateway
from support.shop import PRICE, Shop, new_key


@pytest.fixture
def person(http: httpx.Client, shop: Shop) -> Person:
    return Person(http).join(shop.concert_id)


def signed_pass(shop: Shop, *, expires_in_s: int = 600) -> dict[str, str]:
    shopper = Pass(shop.concert_id, "nobody", 1, 1, 1, f"test-{new_key()}", int(time.time()) + expires_in_s)
    return {"Authorization": f"Bearer {sign_pass(shopper)}"}


def nothing_changed(shop: Shop) -> bool:
    count = primary().value("select count(*) from seat_ledger where schedule_id = :id", id=shop.concert_id)
    return bool(count == 0)


def test_seven_steps_book_a_ticket(http: httpx.Client, shop: Shop, danal: SimulatedGateway) -> None:
    person = Person(http)
    joined = http.post("queue/tokens", json={"concert_id": shop.concert_id, "user_id": person.user_id})
    assert joined.status_code == 201
    assert joined.json().keys() >= {"token", "state", "position", "ahead", "eta_s", "pass", "pass_expires_at"}
    person.join(shop.concert_id)
    current = http.get("queue/tokens/current", headers=person.with_token)
    assert current.status_code == 200
    assert current.json()["state"] == "admitted"

    concert = http.get(f"concerts/{shop.concert_id}")
    assert concert.json() == {
        "id": shop.concert_id,
        "title": "Test",
        "artist": "Test",
        "venue": "Test",
        "sales_open_at": concert.json()["sales_open_at"],
        "status": "on_sale",
        "line_mode": "fifo",
    }
    schedules = http.get(f"concerts/{shop.concert_id}/schedules").json()
    assert schedules["schedules"][0] | {"starts_at": ""} == {
        "id": shop.concert_id, "starts_at": "", "seats_total": 10, "seats_left": 10,
    }  # fmt: skip
    seat_map = http.get(f"schedules/{shop.concert_id}/seats", headers=person.with_pass).json()
    assert seat_map["seats"][0] == {"number": 1, "section": "A", "row": "1", "price": PRICE, "state": "available"}

    reserved = person.reserve(shop.concert_id, [1, 2])
    assert reserved.status_code == 201
    reservation_id = reserved.json()["reservation_id"]
    assert reserved.headers["location"] == f"/reservations/{reservation_id}"
    paid = person.pay(reservation_id)
    assert paid.status_code == 201
    assert paid.json() | {"payment_id": ""} == {
        "payment_id": "", "status": "captured", "reservation_id": reservation_id, "amount": 2 * PRICE,
        "currency": "KRW", "gateway": "danal", "detail": "captured",
    }  # fmt: skip
    assert person.show(reservation_id).json()["status"] == "confirmed"
    # The turn is over: the place in the shop is somebody else's now.
    assert_problem(http.get("queue/tokens/current", headers=person.with_token), 410, "turn-over")


def test_every_answer_carries_the_correlation_id(http: httpx.Client) -> None:
    assert http.get("concerts", headers={"X-Correlation-Id": "abc-123"}).headers["x-correlation-id"] == "abc-123"
    assert http.get("concerts/0", headers={"X-Correlation-Id": "abc-123"}).headers["x-correlation-id"] == "abc-123"
    made_up = http.get("concerts", headers={"X-Correlation-Id": 'x" or 1=1'}).headers["x-correlation-id"]
    assert len(made_up) == 32


def test_the_correlation_id_reaches_the_outbox(person: Person, shop: Shop) -> None:
    person.http.post(
        "reservations",
        json={"schedule_id": shop.concert_id, "seats": [1]},
        headers=person.with_pass | {"Idempotency-Key": new_key(), "X-Correlation-Id": "follow-me"},
    )

    [[correlation_id]] = primary().rows(
        "select correlation_id from outbox where data ->> 'schedule_id' = :id", id=str(shop.concert_id)
    )
    assert correlation_id == "follow-me"


# --- catalogue -----------------------------------------------------------------------------------------------------


def test_concerts_come_in_pages(http: httpx.Client) -> None:
    for _ in range(3):
        Shop.open()
    first = http.get("concerts", params={"limit": 2}).json()
    second = http.get("concerts", params={"limit": 2, "cursor": first["next_cursor"]}).json()

    ids = [concert["id"] for concert in first["concerts"] + second["concerts"]]
    assert len(ids) >= 3
    assert ids == sorted(set(ids))
    last = http.get("concerts", params={"limit": 100}).json()
    assert last["next_cursor"] is None or len(last["concerts"]) == 100


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "x"},
        {"limit": "00001999999999999"},
        {"limit": "0000150"},
        {"cursor": "%%%"},
        {"cursor": "abc"},
    ],
)
def test_an_unusable_page_is_refused(http: httpx.Client, query: dict[str, str]) -> None:
    assert_problem(http.get("concerts", params=query), 400, "bad-request")


def test_catalogue_answers_304_to_who_has_it_already(http: httpx.Client, shop: Shop) -> None:
    for path in (f"concerts/{shop.concert_id}", f"concerts/{shop.concert_id}/schedules"):
        first = http.get(path)
        assert "max-age" in first.headers["cache-control"]
        again = http.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""


def test_a_seat_map_answers_304_until_something_changes(person: Person, shop: Shop) -> None:
    path = f"schedules/{shop.concert_id}/seats"
    etag = person.http.get(path, headers=person.with_pass).headers["etag"]
    assert person.http.get(path, headers=person.with_pass | {"If-None-Match": etag}).status_code == 304

    person.reserve(shop.concert_id, [1])

    changed = person.http.get(path, headers=person.with_pass | {"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.json()["seats"][0]["state"] == "held"


@pytest.mark.parametrize("path", ["concerts/{}", "concerts/{}/schedules"])
@pytest.mark.parametrize("unknown", ["0", "-1", "x", "9223372036854775807", "99999999999999999999", "1%00"])
def test_unknown_concerts_are_not_found(http: httpx.Client, path: str, unknown: str) -> None:
    assert_problem(http.get(path.format(unknown)), 404, "concert-unknown")


# --- refusals: each a clear problem, nothing changed ---------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"schedule_id": 1}',
        b'{"schedule_id": "1", "seats": [1]}',
        b'{"schedule_id": 1, "seats": [1], "price": 1}',
        b'{"schedule_id": 1, "seats": "1"}',
        b'{"schedule_id": 1, "seats": [0]}',
        b'{"schedule_id": 1, "seats": [2147483648]}',
        b'{"schedule_id": 1, "seats": [1.5]}',
        b'{"schedule_id": 99999999999999999999, "seats": [1]}',
        b'{"schedule_id": -1, "seats": [1]}',
        b'{"schedule_id": 1, "seats": [1], "best": 1}',
        b'{"schedule_id": 1, "seats": [1], "section": "A"}',
        b'{"schedule_id": 1, "section": "A"}',
        b'{"schedule_id": 1, "best": 0}',
        b'{"schedule_id": 1, "best": 5}',
        b'{"schedule_id": 1, "best": "2"}',
        b'{"schedule_id": 1, "best": true}',
        b'{"schedule_id": 1, "best": 1.5}',
        b'{"schedule_id": 1, "best": null}',
        b'{"schedule_id": 1, "seats": null, "best": 1}',
        b'{"schedule_id": 1, "best": 1, "section": ""}',
        b'{"schedule_id": 1, "best": 1, "section": null}',
        b'{"schedule_id": 1, "best": 1, "section": "A\\u0000"}',
        b"[" * 10_000,
    ],
)
def test_an_unusable_body_is_refused(person: Person, shop: Shop, body: bytes) -> None:
    response = person.http.post(
        "reservations",
        content=body,
        headers=person.with_pass | {"Idempotency-Key": new_key(), "Content-Type": "application/json"},
    )

    assert_problem(response, 400, "bad-request")
    assert nothing_changed(shop)


def test_a_huge_body_is_refused(person: Person, shop: Shop) -> None:
    seats = [1] * 20_000
    assert_problem(person.reserve(shop.concert_id, seats), 413, "body-too-large")


def test_another_media_type_is_refused(person: Person) -> None:
    response = person.http.post(
        "reservations", data={"seats": "1"}, headers=person.with_pass | {"Idempotency-Key": new_key()}
    )
    assert_problem(response, 415, "unsupported-media-type")


@pytest.mark.parametrize("method", ["", "Card", "card\n", "c" * 33, "card; drop"])
def test_an_unusable_method_is_refused(person: Person, shop: Shop, method: str) -> None:
    reservation_id = person.reserve(shop.concert_id, [1]).json()["reservation_id"]

    assert_problem(person.pay(reservation_id, method), 400, "bad-request")


def test_spelling_makes_no_other_request(person: Person, shop: Shop, danal: SimulatedGateway) -> None:
    reservation_id, key = person.reserve(shop.concert_id, [1]).json()["reservation_id"], new_key()

    first = person.pay(reservation_id, key=key)
    assert person.pay(reservation_id.upper(), key=key).json() == first.json()


@pytest.mark.parametrize("seats", [[], [1, 2, 3, 4, 5], [1, 1]])
def test_a_senseless_number_of_seats_is_refused(person: Person, shop: Shop, seats: list[int]) -> None:
    assert_problem(person.reserve(shop.concert_id, seats), 400, "bad-request")
    assert nothing_changed(shop)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "either `seats`"),
        ({"seats": [1], "best": 1}, "either `seats`"),
        ({"seats": [1], "section": "A"}, "goes with `best`"),
        ({"best": 5}, "$.best"),
    ],
)
def test_a_request_that_asks_for_no_seats_or_twice_is_told_what_to_ask(
    person: Person, shop: Shop, asked: dict[str, object], words: str
) -> None:
    problem = assert_problem(person.ask(shop.concert_id, asked), 400, "bad-request")
    assert words in problem["detail"]


def test_the_best_seats_are_reserved_and_paid_as_any(person: Person, shop: Shop, danal: SimulatedGateway) -> None:
    key = new_key()
    reserved = person.ask(shop.concert_id, {"best": 2, "section": "A"}, key)

    assert reserved.status_code == 201
    assert reserved.headers["location"] == f"/reservations/{reserved.json()['reservation_id']}"
    assert reserved.json() | {"reservation_id": "", "expires_at": ""} == {
        "reservation_id": "", "status": "held", "schedule_id": shop.concert_id, "seats": [1, 2],
        "side_by_side": True, "total": 2 * PRICE, "currency": "KRW", "expires_at": "",
    }  # fmt: skip
    assert person.ask(shop.concert_id, {"section": "A", "best": 2}, key).content == reserved.content
    assert_problem(person.ask(shop.concert_id, {"best": 2}, key), 422, "idempotency-key-reused")
    assert person.pay(reserved.json()["reservation_id"]).status_code == 201


def test_too_few_best_seats_are_told(person: Person, http: httpx.Client) -> None:
    small = Shop.open(seats=2)
    other = Person(http).join(small.concert_id)

    problem = assert_problem(other.ask(small.concert_id, {"best": 3}), 409, "too-few-seats-left")
    assert problem["seats_left"] == 2
    assert_problem(other.ask(small.concert_id, {"best": 1, "section": "Z"}), 404, "section-unknown")
    assert nothing_changed(small)


def test_what_was_asked_before_best_could_be_asked_is_the_same_request(person: Person, shop: Shop) -> None:
    """A key's hash is kept for a day: a deployment that changed it would refuse the retries of what came before."""
    key = new_key()
    person.reserve(shop.concert_id, [1], key)

    [[kept]] = primary().rows("select body_hash from idempotency where key = :key", key=key)
    asked = b'[{"schedule_id":%d,"seats":[1]}]' % shop.concert_id
    assert kept == hashlib.blake2b(asked, digest_size=16).hexdigest()


@pytest.mark.parametrize("key", [None, " ", "k" * 256, "k\x07"])
def test_an_unusable_idempotency_key_is_refused(person: Person, shop: Shop, key: str | None) -> None:
    headers = person.with_pass | ({} if key is None else {"Idempotency-Key": key})
    response = person.http.post("reservations", json={"schedule_id": shop.concert_id, "seats": [1]}, headers=headers)

    assert_problem(response, 400, "bad-request")
    assert nothing_changed(shop)


@pytest.mark.parametrize(
    "credentials", [{}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp4"}, {"Authorization": "Bearer"}]
)
def test_without_a_pass_there_is_no_shop(http: httpx.Client, shop: Shop, credentials: dict[str, str]) -> None:
    answers = [
        http.get(f"schedules/{shop.concert_id}/seats", headers=credentials),
        http.post("reservations", json={"schedule_id": shop.concert_id, "seats": [1]},
                  headers=credentials | {"Idempotency-Key": new_key()}),
        http.post("reservations/00000000-0000-0000-0000-000000000000/payments", json={"method": "card"},
                  headers=credentials | {"Idempotency-Key": new_key()}),
    ]  # fmt: skip
    for response in answers:
        assert_problem(response, 401, "pass-invalid")
        assert response.headers["www-authenticate"] == "Bearer"
    assert nothing_changed(shop)


def test_a_token_is_no_pass_and_a_pass_no_token(person: Person, shop: Shop) -> None:
    seats = person.http.get(f"schedules/{shop.concert_id}/seats", headers=person.with_token)
    assert_problem(seats, 401, "pass-invalid")
    assert_problem(person.http.get("queue/tokens/current", headers=person.with_pass), 401, "token-invalid")


def test_an_expired_pass_opens_nothing(http: httpx.Client, shop: Shop) -> None:
    response = http.get(f"schedules/{shop.concert_id}/seats", headers=signed_pass(shop, expires_in_s=-1))
    assert_problem(response, 401, "pass-expired")


def test_a_pass_of_another_concert_opens_nothing(person: Person, shop: Shop) -> None:
    other = Shop.open()

    response = person.http.get(f"schedules/{other.concert_id}/seats", headers=person.with_pass)
    assert_problem(response, 403, "pass-of-another-concert")
    assert_problem(person.reserve(other.concert_id, [1]), 403, "pass-of-another-concert")
    assert nothing_changed(other)


def test_another_persons_reservation_does_not_exist(person: Person, http: httpx.Client, shop: Shop) -> None:
    reservation_id = person.reserve(shop.concert_id, [1]).json()["reservation_id"]
    stranger = Person(http).join(shop.concert_id)

    assert_problem(stranger.show(reservation_id), 404, "reservation-unknown")
    assert_problem(stranger.pay(reservation_id), 404, "reservation-unknown")
    deleted = http.delete(f"reservations/{reservation_id}", headers=stranger.with_pass)
    assert_problem(deleted, 404, "reservation-unknown")
    assert_problem(stranger.show("not-a-uuid"), 404, "reservation-unknown")
    assert shop.seat(1)["state"] == "held"


def test_a_reservation_is_shown_by_pass_and_by_token(person: Person, shop: Shop) -> None:
    reservation_id = person.reserve(shop.concert_id, [1]).json()["reservation_id"]

    by_token = person.http.get(f"reservations/{reservation_id}", headers=person.with_token)
    by_pass = person.http.get(f"reservations/{reservation_id}", headers=person.with_pass)
    assert by_token.json() == by_pass.json()
    [begun] = by_token.json()["story"]
    assert begun == {"at": begun["at"], "event": "held", "seats": [1], "until": by_token.json()["expires_at"]}
    assert_problem(person.http.get(f"reservations/{reservation_id}"), 401, "token-invalid")


def test_a_taken_seat_is_named(person: Person, http: httpx.Client, shop: Shop) -> None:
    person.reserve(shop.concert_id, [2])

    problem = assert_problem(Person(http).join(shop.concert_id).reserve(shop.concert_id, [1, 2]), 409, "seat-taken")
    assert problem["seats"] == [2]


def test_a_retry_with_the_same_key_gets_the_same_answer(person: Person, shop: Shop) -> None:
    key = new_key()

    first = person.reserve(shop.concert_id, [1], key)
    assert first.content == person.reserve(shop.concert_id, [1], key).content
    assert_problem(person.reserve(shop.concert_id, [2], key), 422, "idempotency-key-reused")


def test_a_payments_key_is_for_one_reservation(person: Person, shop: Shop, danal: SimulatedGateway) -> None:
    first = person.reserve(shop.concert_id, [1]).json()["reservation_id"]
    second = person.reserve(shop.concert_id, [2]).json()["reservation_id"]
    key = new_key()
    person.pay(first, key=key)

    assert_problem(person.pay(second, key=key), 422, "idempotency-key-reused")
    assert shop.seat(2)["state"] == "held"


def test_a_declined_payment_is_402_and_the_seats_stay(person: Person, shop: Shop, danal: SimulatedGateway) -> None:
    reservation_id = person.reserve(shop.concert_id, [1]).json()["reservation_id"]

    assert_problem(person.pay(reservation_id, "card_declined"), 402, "payment-declined")
    assert person.show(reservation_id).json()["status"] == "held"


def test_a_payment_in_doubt_is_202_with_the_choice_to_wait_or_cancel(
    person: Person, shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None]
) -> None:
    use_settings(gateway_read_timeout_s=0.2)
    danal.faults(mode="approve_then_hang")
    reservation_id = person.reserve(shop.concert_id, [1]).json()["reservation_id"]

    pending = person.pay(reservation_id)
    assert pending.status_code == 202
    assert pending.headers["retry-after"]
    assert pending.json()["status"] == "pending"
    assert pending.json()["options"] == ["wait", "cancel"]
    problem = assert_problem(person.pay(reservation_id), 409, "payment-in-progress")
    assert problem["options"] == ["wait", "cancel"]

    danal.well()
    cancelled = person.http.delete(f"reservations/{reservation_id}", headers=person.with_pass)
    assert cancelled.json()["status"] == "cancelled"


# --- faults --------------------------------------------------------------------------------------------------------


def test_the_database_away_is_503_with_retry_after(
    person: Person, shop: Shop, use_settings: Callable[..., None]
) -> None:
    use_settings(database_url="postgresql://encore@127.0.0.1:1/encore")

    response = person.reserve(shop.concert_id, [1])

    assert_problem(response, 503, "database-away")
    assert response.headers["retry-after"]


def test_the_catalogue_is_read_from_the_primary_while_the_replica_is_away(
    http: httpx.Client, shop: Shop, use_settings: Callable[..., None]
) -> None:
    use_settings(replica_url="postgresql://encore@127.0.0.1:1/encore")

    assert http.get(f"concerts/{shop.concert_id}").status_code == 200


def test_a_seat_map_is_read_from_the_replica_while_there_is_no_primary_and_is_not_kept(
    person: Person, shop: Shop, use_settings: Callable[..., AbstractContextManager[None]]
) -> None:
    with use_settings(database_url="postgresql://encore@127.0.0.1:1/encore"):
        first = person.http.get(f"schedules/{shop.concert_id}/seats", headers=person.with_pass)
    primary().rows("update seat set price = 7 where schedule_id = :id", id=shop.concert_id)  # nobody says so
    then = person.http.get(f"schedules/{shop.concert_id}/seats", headers=person.with_pass)

    assert first.status_code == 200
    assert {seat["price"] for seat in then.json()["seats"]} == {7}


def test_with_redis_away_joins_wait_and_those_inside_go_on(
    person: Person, shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None]
) -> None:
    away = "redis://127.0.0.1:1/0"
    use_settings(queue_redis_url=away, locks_redis_url=away, cache_redis_url=away)

    joining = person.http.post("queue/tokens", json={"concert_id": shop.concert_id, "user_id": "someone else"})
    assert_problem(joining, 503, "line-away")
    assert joining.headers["retry-after"]
    reserved = person.reserve(shop.concert_id, [1])
    assert reserved.status_code == 201
    assert person.pay(reserved.json()["reservation_id"]).status_code == 201


def test_a_fault_of_ours_is_a_problem_too(http: httpx.Client, monkeypatch: pytest.MonkeyPatch, shop: Shop) -> None:
    monkeypatch.setattr("booking.catalog.concerts.find_concert", lambda _: 1 / 0)

    problem = assert_problem(http.get(f"concerts/{shop.concert_id}"), 500, "internal-error")
    assert "ZeroDivisionError" not in str(problem)


@pytest.mark.parametrize(
    ("edge_trust", "status", "slug"), [("authorizer", 400, "bad-request"), ("api_key", 401, "api-key-needed")]
)
def test_nobody_is_taken_at_their_word_unless_that_is_asked_for(
    shop: Shop, http: httpx.Client, use_settings: Callable[..., None], edge_trust: str, status: int, slug: str
) -> None:
    use_settings(edge_trust=edge_trust)

    response = http.post("queue/tokens", json={"concert_id": shop.concert_id, "user_id": "whoever"})

    assert_problem(response, status, slug)
