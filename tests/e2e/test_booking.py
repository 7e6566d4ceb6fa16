"""Booking through the deployed functions, over HTTP, by way of Kafka to the ticket."""

import random
import secrets
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pg8000.native
import pytest

from encore_stack.instance import Instance
from support.client import Person, assert_problem
from support.shop import lapse
from support.waiting import wait_for

Script = Callable[..., subprocess.CompletedProcess[str]]

_PEOPLE = 200
_GROUPS = 60
_AT_ONCE = 40
as_deployed = pytest.mark.parametrize("http", ["api_url"], indirect=True)
"""What a deployed loop does, whichever way the request came: it takes seconds, and is waited for once."""


def free_seats(person: Person, schedule_id: int) -> list[int]:
    seat_map = person.http.get(f"schedules/{schedule_id}/seats", headers=person.with_pass).json()
    return [seat["number"] for seat in seat_map["seats"] if seat["state"] == "available"]


def first_free_seat(person: Person, schedule_id: int) -> int:
    return free_seats(person, schedule_id)[0]


@contextmanager
def faulty(gateway_url: str, **faults: Any) -> Iterator[None]:
    """A simulated gateway with faults for the length of the block."""
    httpx.put(f"{gateway_url}/_faults", json=faults, trust_env=False).raise_for_status()
    try:
        yield
    finally:
        httpx.delete(f"{gateway_url}/_faults", trust_env=False).raise_for_status()


@contextmanager
def database(instance: Instance) -> Iterator[pg8000.native.Connection]:
    """The deployed functions' own database."""
    address = urlsplit(instance.database_url(instance.postgres_primary))
    connection = pg8000.native.Connection(
        address.username or "", password=address.password, host=address.hostname or "", port=address.port or 0,
        database=address.path.lstrip("/"), ssl_context=False,
    )  # fmt: skip
    with closing(connection):
        yield connection


def test_the_tour_books_a_ticket_and_the_audit_passes(run_script: Script) -> None:
    tour = run_script("tour")

    assert tour.returncode == 0, tour.stdout + tour.stderr
    for step in (
        "1 join the line",
        "2 where am I",
        "3 concerts",
        "4 schedules",
        "5 seats",
        "6 reserve",
        "7 pay",
        "code",
    ):
        assert step in tour.stdout
    assert "audit passed" in tour.stdout


def test_a_booked_ticket_can_be_given_back(http: httpx.Client) -> None:
    person = Person(http).join(2)
    seat = first_free_seat(person, 201)
    reservation_id = person.reserve(201, [seat]).json()["reservation_id"]
    assert person.pay(reservation_id).status_code == 201
    booked = wait_for(lambda: person.show(reservation_id).json(), lambda shown: "ticket" in shown)
    assert booked["status"] == "confirmed"

    given_back = http.delete(f"reservations/{reservation_id}", headers=person.with_token)

    assert given_back.json()["status"] == "refunded"
    wait_for(lambda: person.show(reservation_id).json(), lambda shown: "ticket" not in shown)
    assert first_free_seat(Person(http).join(2), 201) <= seat


def test_leaving_the_line_ends_the_turn(http: httpx.Client) -> None:
    person = Person(http).join(3)

    assert http.delete("queue/tokens/current", headers=person.with_token).status_code == 204
    assert_problem(http.get("queue/tokens/current", headers=person.with_token), 410, "turn-over")
    # The pass is refused as soon as the end of the turn has reached Postgres, within a second or so.
    wait_for(lambda: person.reserve(301, [10]).json(), lambda answer: answer.get("type") == "/problems/turn-over")


def test_refusals_look_the_same_everywhere(http: httpx.Client) -> None:
    person = Person(http).join(1)

    assert_problem(http.get("concerts/999999"), 404, "concert-unknown")
    assert_problem(http.post("queue/tokens", json={"concert_id": 999999, "user_id": "x"}), 404, "concert-unknown")
    assert_problem(http.post("queue/tokens", json={"concert_id": 1}), 400, "bad-request")
    assert_problem(http.post("queue/tokens", json={"concert_id": 5, "user_id": "x"}), 409, "sales-not-open")
    assert_problem(http.get("queue/tokens/current"), 401, "token-invalid")
    assert_problem(person.reserve(201, [1]), 403, "pass-of-another-concert")
    assert_problem(person.reserve(101, [1, 2, 3, 4, 5]), 400, "bad-request")
    assert http.get("nowhere").status_code in (403, 404)


def test_catalogue_answers_304_to_who_has_it_already(http: httpx.Client) -> None:
    etag = http.get("concerts/1").headers["etag"]

    assert http.get("concerts/1", headers={"If-None-Match": etag}).status_code == 304


def test_a_correlation_id_goes_from_the_request_to_the_consumers_log(http: httpx.Client, instance: Instance) -> None:
    person = Person(http).join(2)
    http.headers["X-Correlation-Id"] = correlation_id = secrets.token_hex(8)
    reserved = person.reserve(202, [first_free_seat(person, 202)])
    assert reserved.headers["x-correlation-id"] == correlation_id
    log = instance.log_dir / "functions" / "encore-on_reservation_events_issue_tickets.log"

    wait_for(lambda: {"log": log.read_text()}, lambda shown: correlation_id in shown["log"])


@as_deployed
def test_a_payment_in_doubt_is_settled_and_becomes_a_ticket(http: httpx.Client, instance: Instance) -> None:
    person = Person(http).join(3)
    reservation_id = person.reserve(302, [first_free_seat(person, 302)]).json()["reservation_id"]
    with faulty(instance.url("danal"), mode="approve_then_hang"):
        pending = person.pay(reservation_id)
    assert pending.status_code == 202
    assert pending.json()["options"] == ["wait", "cancel"]

    booked = wait_for(lambda: person.show(reservation_id).json(), lambda shown: "ticket" in shown)

    assert booked["status"] == "confirmed"


@as_deployed
def test_the_sweeper_puts_back_the_seats_of_a_lapsed_hold(http: httpx.Client, instance: Instance) -> None:
    person = Person(http).join(3)
    reservation_id = person.reserve(303, [first_free_seat(person, 303)]).json()["reservation_id"]
    with database(instance) as connection:
        lapse(connection.run, reservation_id)
        swept = wait_for(
            lambda: {"events": connection.run(
                "select event from seat_ledger where reservation_id = cast(:id as uuid) order by version",
                id=reservation_id,
            )},
            lambda shown: len(shown["events"]) == 2,
        )  # fmt: skip

    assert swept["events"] == [["held"], ["expired"]]
    assert person.show(reservation_id).json()["status"] == "expired"


@pytest.mark.race
def test_two_hundred_people_one_seat_one_wins(http: httpx.Client, run_script: Script) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as crowd:
        people = list(crowd.map(lambda _: Person(http).join(4), range(_PEOPLE)))
        seat = first_free_seat(people[0], 401)
        answers = list(crowd.map(lambda person: person.reserve(401, [seat]), people))

    outcomes = Counter(answer.status_code for answer in answers)
    assert outcomes == {201: 1, 409: _PEOPLE - 1}
    for answer in answers:
        if answer.status_code == 409:
            assert_problem(answer, 409, "seat-taken")
    audit = run_script("audit", "--settle", "30")
    assert audit.returncode == 0, audit.stdout + audit.stderr


@pytest.mark.race
def test_groups_that_want_the_same_seats_are_told_which_are_taken(http: httpx.Client, run_script: Script) -> None:
    chance = random.Random(1)
    with ThreadPoolExecutor(_AT_ONCE) as crowd:
        people = list(crowd.map(lambda _: Person(http).join(4), range(_GROUPS)))
        seats = free_seats(people[0], 402)[:8]
        wishes = [(person, chance.sample(seats, n % 4 + 1), secrets.token_hex(16)) for n, person in enumerate(people)]
        answers = list(crowd.map(lambda wish: wish[0].reserve(402, wish[1], wish[2]), wishes))

    sold: list[int] = []
    for (person, wanted, key), answer in zip(wishes, answers, strict=True):
        if answer.status_code == 201:
            sold += answer.json()["seats"]
            assert person.reserve(402, wanted, key).json() == answer.json()
        else:
            taken = assert_problem(answer, 409, "seat-taken")["seats"]
            assert taken
            assert set(taken) <= set(wanted)
    assert sold
    assert len(sold) == len(set(sold)), "a seat was sold twice"
    audit = run_script("audit", "--settle", "30")
    assert audit.returncode == 0, audit.stdout + audit.stderr
