"""Limits on time: who meets a lock is told so within the timeouts, and changes nothing; no hold outlives its cap."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pg8000.exceptions import DatabaseError

import booking
from booking import payment
from booking.operations.audit import Verdict
from booking.platform import postgres
from booking.platform.postgres import Server, primary, sqlstate
from booking.platform.problems import Refusal
from booking.platform.settings import settings
from support.client import Person, assert_problem
from support.gateways import SimulatedGateway
from support.redis import runs_on
from support.rows import locked_seats, transaction, wait_until_somebody_waits
from support.shop import Shop, new_key
from support.sound import SOUND

pytestmark = runs_on("single")  # the limits are Postgres's

_LONG_MS = 60_000
_SHORT_MS = 100
_BOOKING = Path(booking.__file__).parent


@pytest.fixture
def time_limits(use_settings: Callable[..., object]) -> Iterator[Callable[..., None]]:
    """``time_limits(lock_timeout_ms=…, statement_timeout_ms=…)``, also for the connection that is open already."""

    def limit(**limits_ms: int) -> None:
        use_settings(**limits_ms)
        forget_connections()

    yield limit
    forget_connections()


def forget_connections() -> None:
    """A connection keeps the limits with which it was opened."""
    servers = postgres._servers.__dict__.get("by_url", {})
    for server in servers.values():
        server.close()
    servers.clear()


@pytest.fixture
def person(http: httpx.Client, shop: Shop) -> Person:
    return Person(http).join(shop.concert_id)


_LIMITS = [
    pytest.param({"lock_timeout_ms": _SHORT_MS, "statement_timeout_ms": _LONG_MS}, id="lock_timeout"),
    pytest.param({"lock_timeout_ms": _LONG_MS, "statement_timeout_ms": _SHORT_MS}, id="statement_timeout"),
]


def everything_of(shop: Shop) -> list[object]:
    """All that a request could have changed."""
    tables = {
        "seat": "schedule_id", "seat_ledger": "schedule_id", "reservation": "schedule_id",
        "payment": "(select schedule_id from reservation r where r.id = t.reservation_id)",
        "outbox": "(t.data ->> 'schedule_id')::bigint",
        "idempotency": "(select schedule_id from reservation r where r.id = t.reservation_id)",
    }  # fmt: skip
    return [
        primary().rows(f"select t::text from {table} t where {schedule} = :id order by 1", id=shop.concert_id)
        for table, schedule in tables.items()
    ]


def assert_busy(response: httpx.Response) -> None:
    assert_problem(response, 503, "database-busy")
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("limits", _LIMITS)
@pytest.mark.parametrize("asked", [{"seats": [2, 1]}, {"best": 2}], ids=["seats", "best"])
def test_a_hold_that_meets_locked_seats_is_503_and_changes_nothing(
    person: Person,
    shop: Shop,
    asked: dict[str, object],
    limits: dict[str, int],
    time_limits: Callable[..., None],
    audit: Callable[[], Verdict],
) -> None:
    key, before = new_key(), everything_of(shop)
    time_limits(**limits)

    with locked_seats(shop.concert_id, list(range(1, 11))):  # it stays locked until the answer is there
        assert_busy(person.ask(shop.concert_id, asked, key))
        assert everything_of(shop) == before

    assert person.ask(shop.concert_id, asked, key).json()["seats"] == [1, 2]
    assert audit().violations == SOUND


@pytest.mark.parametrize("limits", _LIMITS)
@pytest.mark.parametrize(
    ("step", "locked"),
    [("pay", "person"), ("pay", "reservation"), ("pay", "seat"), ("cancel", "reservation"), ("cancel", "seat")],
)
def test_paying_and_cancelling_meet_the_same_limits(
    person: Person,
    shop: Shop,
    step: str,
    locked: str,
    limits: dict[str, int],
    time_limits: Callable[..., None],
    use_settings: Callable[..., object],
    danal: SimulatedGateway,
) -> None:
    use_settings(hold_ttl_s=60)  # a payment extends the hold, so it needs the seats
    reservation_id = person.reserve(shop.concert_id, [1]).json()["reservation_id"]
    locks = {
        "seat": "select from seat where reservation_id = cast(:id as uuid) for update",
        "reservation": "select from reservation where id = cast(:id as uuid) for update",
        "person": "select pg_advisory_xact_lock(hashtextextended(person, 0)) from reservation"
        " where id = cast(:id as uuid)",
    }
    before = everything_of(shop)
    time_limits(**limits)

    def ask() -> httpx.Response:
        if step == "pay":
            return person.pay(reservation_id)
        return person.http.delete(f"reservations/{reservation_id}", headers=person.with_pass)

    with transaction(locks[locked], id=reservation_id):
        assert_busy(ask())
        assert everything_of(shop) == before

    assert danal.charged(reservation_id) == 0
    assert ask().status_code in (200, 201)


def test_without_the_limits_it_would_wait_for_as_long_as_the_lock(shop: Shop, time_limits: Callable[..., None]) -> None:
    time_limits(lock_timeout_ms=_LONG_MS, statement_timeout_ms=_LONG_MS)

    with locked_seats(shop.concert_id, [1]) as other, ThreadPoolExecutor(1) as waiting:
        answer = waiting.submit(lambda: shop.hold([1]))
        wait_until_somebody_waits(other)
        assert not answer.done()
        other.rows("rollback")
        assert answer.result()["status"] == "held"


def test_the_default_limits_are_those_of_every_connection() -> None:
    [limits] = primary().rows(
        "select current_setting('lock_timeout'), current_setting('statement_timeout'),"
        " current_setting('idle_in_transaction_session_timeout')"
    )
    assert limits == ["2s", "3s", "10s"]


def test_a_transaction_that_its_function_left_open_lets_go_of_its_locks(
    shop: Shop, time_limits: Callable[..., None]
) -> None:
    """As ``idle_in_transaction_session_timeout`` ends it, only sooner."""
    time_limits(lock_timeout_ms=_LONG_MS, statement_timeout_ms=_LONG_MS)
    with locked_seats(shop.concert_id, [1]) as left, suppress(Refusal):
        left.rows("set idle_in_transaction_session_timeout = '50ms'")

        assert shop.hold([1])["status"] == "held"


# --- the hard cap --------------------------------------------------------------------------------------------------

_HOLD_S, _CAP_S, _DEADLINE_S = 40, 150, 50
_STEPS = st.one_of(
    st.sampled_from(["decline", "doubt", "settle", "past deadline", "look"]), st.integers(1, 60).map(lambda s: f"{s}")
)


class Retries:
    """One person's reservation, and all that they and the settling job may try in order to keep it."""

    def __init__(self, danal: SimulatedGateway) -> None:
        self.danal = danal
        self.shop = Shop.open(wait=False)
        self.held = self.shop.hold([1, 2])
        self.cap_s = 0.0

    def do(self, step: str) -> None:
        if step.isdecimal():
            self.shop.let_pass(self.held, int(step))
        elif step == "look":
            with suppress(Refusal):
                payment.show_settled(self.held["reservation_id"], self.shop.shopper().person)
        elif step in ("decline", "doubt"):
            if step == "doubt":
                self.danal.faults(mode="refuse")
            with suppress(Refusal):
                self.shop.pay(self.held, method="card_declined")
            self.danal.well()
        else:
            moved = ", deadline_at = least(deadline_at, clock_timestamp())" if step == "past deadline" else ""
            primary().rows(
                f"update payment set next_check_at = clock_timestamp(){moved} where reservation_id = cast(:id as uuid)",
                id=self.held["reservation_id"],
            )
            payment.settle_due()

    def assert_within_cap(self) -> None:
        """Nothing of it lies past the cap, which lies where it lay when the hold was made."""
        [[kept, age_s]] = primary().rows(
            "select r.hard_cap_at = r.created_at + make_interval(secs => cast(:cap_s as integer))"
            " and r.expires_at <= r.hard_cap_at"
            " and not exists (select from seat where reservation_id = r.id and held_until > r.hard_cap_at)"
            " and not exists (select from seat_ledger where reservation_id = r.id and held_until > r.hard_cap_at)"
            " and not exists (select from payment where reservation_id = r.id and deadline_at > r.hard_cap_at),"
            " extract(epoch from clock_timestamp() - r.created_at)"
            " from reservation r where id = cast(:id as uuid)",
            id=self.held["reservation_id"],
            cap_s=_CAP_S,
        )
        assert kept, "something lies past the cap"
        if age_s >= _CAP_S:
            assert self.shop.map_state(1) == "available"


@given(st.lists(_STEPS, max_size=10))
@example(["30", "decline", "40", "decline", "40", "decline", "35", "decline"])  # a minute more each time, as told
@example(["30", "doubt", "40", "past deadline", "40", "doubt", "30", "settle"])
@hypothesis_settings(
    max_examples=15,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_sequence_of_declines_and_retries_moves_a_hold_past_its_cap(
    limited: None, danal: SimulatedGateway, steps: list[str]
) -> None:
    retries = Retries(danal)
    for step in steps:
        retries.do(step)
        retries.assert_within_cap()
    retries.do(str(_CAP_S))
    retries.do("decline")
    retries.assert_within_cap()
    assert retries.shop.hold([1, 2], "next")["status"] == "held"


@pytest.fixture
def limited(use_settings: Callable[..., object]) -> None:
    use_settings(hold_ttl_s=_HOLD_S, hold_cap_s=_CAP_S, payment_deadline_s=_DEADLINE_S, gateway_glance_timeout_s=0.2)


@pytest.fixture(scope="module")
def uncapped_url(make_database: Callable[[str], str]) -> str:
    """A database of its own, whose functions a test may weaken."""
    return make_database("encore_uncapped")


_CAPS = {
    "begin_payment": ("least(v_now + make_interval(secs => p_deadline_s), v_mine.hard_cap_at)",
                      "v_now + make_interval(secs => p_deadline_s)"),
    "settle_untaken": ("least(p_mine.hard_cap_at,\n                          greatest(", "(greatest("),
}  # fmt: skip


@pytest.mark.parametrize("name", _CAPS)
def test_without_the_cap_a_retry_moves_it_and_the_table_refuses_that(
    name: str,
    limited: None,
    danal: SimulatedGateway,
    uncapped_url: str,
    monkeypatch: pytest.MonkeyPatch,
    use_settings: Callable[..., AbstractContextManager[None]],
) -> None:
    monkeypatch.setenv("ENCORE_DATABASE_URL", uncapped_url)
    settings.cache_clear()
    source = (_BOOKING / "payment" / "sql" / "functions" / f"{name}.sql").read_text()
    guard, instead = _CAPS[name]
    assert guard in source, "the guard is no longer written like this: mend this negative control"
    steps = ["30", "decline", "40", "decline", "40", "decline", "35", "decline"]

    def retry() -> None:
        retries = Retries(danal)
        for step in steps:
            retries.do(step)
            retries.assert_within_cap()

    with (
        Server(uncapped_url)._open().connection as connection
    ):  # not through the bundle: this is no statement of its own
        connection.run(source.replace(guard, instead))
        try:
            with pytest.raises(DatabaseError) as refused:
                retry()
            assert sqlstate(refused.value) == "23514"  # check_violation
            connection.run("alter table reservation drop constraint reservation_check")
            with pytest.raises(AssertionError, match="past the cap"):
                retry()
        finally:
            connection.run(source)
            connection.run("alter table reservation add check (expires_at <= hard_cap_at) not valid")
