"""No statement of the bundle reads a big table from one end to the other: as the server itself plans and runs them.

Each statement runs on the data of a sale that has been going on for a while, in the order in which a booking runs them.
``auto_explain`` tells the client the plan of every statement, those in functions and of foreign keys too. Once the
plans are made for the values (as in the first calls of a connection) and once for any values (as later).
"""

import re
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pg8000.native
import pytest

import booking
from booking.payment import cancellation, settlement
from booking.platform.resources import read_text
from booking.queue import gate, restore
from booking.seats import holds, reads
from encore_stack.dataset import Counts, load
from encore_stack.instance import Instance
from encore_stack.parts.postgres import connect

_BOOKING = Path(booking.__file__).parent
_BIG = re.compile(
    r"(seat(_\d+)?|schedule|schedule_sales|concert_sales|reservation|seat_ledger|idempotency|payment|outbox|inbox|ticket|notice"
    r"|admission|gate_change)\Z"
)
_READ_WHOLE = {"outbox_unpublished", "notice_unsent", "gate_change_started", "concert_sales_best"}
"""Indexes that hold only what is asked for, or are read in their order up to a limit."""
_ADMINISTRATION = {"operations"}
"""The audit reads everything, and is meant to; the job that ends long locks reads what the server does."""

_FIRMS = ["danal", "payco"]
_SOMEBODY_S = "00000000-0000-0000-0000-000000000000"

Plans = dict[str, list[dict[str, Any]]]


class Planner:
    """A connection that is told how each of its statements was carried out."""

    def __init__(self, connection: pg8000.native.Connection) -> None:
        self._connection = connection
        connection.notices = deque()
        self.plans: Plans = defaultdict(list)
        """By the name of the statement that was sent; those within it included."""

    def run(self, name: str, sql: str | None = None, **parameters: Any) -> Any:
        """Run ``capability/statement`` (or ``sql`` under that name); returns the first column of the first row.

        Without a name it is the test's own."""
        capability, _, statement = name.partition("/")
        self._connection.notices.clear()
        rows = self._connection.run(sql or read_text(f"booking.{capability}", f"sql/{statement}.sql"), **parameters)
        self._connection.run("select")  # within a transaction a statement is over when the next one begins
        for notice in self._connection.notices if name else ():
            told = notice[b"M"].decode()
            if told.startswith("duration: "):
                self.plans[name].append(msgspec.json.decode(told.partition("plan:\n")[2]))
        return rows[0][0] if rows else None

    def document(self, name: str, sql: str | None = None, **parameters: Any) -> Any:
        return msgspec.json.decode(self.run(name, sql, **parameters))

    def execute(self, sql: str) -> None:
        self._connection.run(sql)


@pytest.fixture(scope="module")
def plans_url(make_database: Callable[[str], str], instance: Instance) -> str:
    url = make_database("encore_plans")
    with closing(superuser(instance)) as connection:
        connection.run((_BOOKING.parents[2] / "tests/integration/platform/query_plans.sql").read_text())
        connection.run("analyze")
    return url


def superuser(instance: Instance, database: str = "encore_plans") -> pg8000.native.Connection:
    return connect(instance, instance.postgres_primary, user="postgres", database=database)


@pytest.fixture(params=["force_custom_plan", "force_generic_plan"])
def planner(request: pytest.FixtureRequest, plans_url: str, instance: Instance) -> Iterator[Planner]:
    with closing(superuser(instance)) as connection:
        yield from planner_on(connection, request.param)


def planner_on(connection: pg8000.native.Connection, plan_cache_mode: str) -> Iterator[Planner]:
    """In a transaction that is rolled back."""
    connection.run("load 'auto_explain'")
    settings = {
        "auto_explain.log_min_duration": "0", "auto_explain.log_nested_statements": "on",
        "auto_explain.log_format": "json", "auto_explain.log_level": "notice", "track_functions": "all",
        "plan_cache_mode": plan_cache_mode,
    }  # fmt: skip
    for name, value in settings.items():
        connection.run(f"set {name} = '{value}'")
    connection.run("set role encore")
    connection.run("begin")
    yield Planner(connection)
    connection.run("rollback")


@pytest.fixture
def small_planner(make_database: Callable[[str], str], instance: Instance) -> Iterator[Planner]:
    """On a database that was analyzed before its first sale."""
    make_database("encore_plans_small")
    url = instance.database_url(instance.postgres_primary).rsplit("/", 1)[0] + "/encore_plans_small"
    load(url, Counts(2, 2, 300), lambda _: None)
    with closing(superuser(instance, "encore_plans_small")) as connection:
        connection.run("analyze")
        yield from planner_on(connection, "auto")


def book(planner: Planner) -> None:
    """Everything that a person and the background loops do, once."""
    read_catalogue(planner)
    reservation_id = hold(planner, "buyer 1", numbers=[1, 2])
    hold(planner, "buyer 2", best=2)
    hold(planner, "buyer 3", best=2, section="S")
    hold(planner, "buyer 4", best=2, patient=True)
    given_back = hold(planner, "buyer 2", numbers=[41])
    planner.run("seats/cancel_hold", holds._CANCEL, person="buyer 2", correlation_id="test", reservation_id=given_back)
    declined = begin_payment(planner, "buyer 3", hold(planner, "buyer 3", numbers=[45]))
    settle(planner, declined, "declined")
    paid = begin_payment(planner, "buyer 1", reservation_id)
    planner.run(
        "payment/turn_payment", payment_id=paid, left_gateway="payco", to_gateway="danal", correlation_id="test"
    )
    planner.run("payment/tell_pending", payment_id=paid, correlation_id="test")
    assert planner.run("payment/open_payment", reservation_id=reservation_id) == paid
    settle(planner, paid, "captured")
    tell_the_world(planner, reservation_id)
    assert planner.document("seats/reservation", reservation_id=reservation_id, person="buyer 1")["ticket"]
    refund(planner, "buyer 1", reservation_id, paid)
    sweep(planner)
    run_the_line(planner)


def read_catalogue(planner: Planner) -> None:
    planner.run("catalog/concerts", after=0, limit=21)
    planner.run("catalog/best_selling", limit=10)
    planner.run("catalog/concert", concert_id=1)
    planner.run("catalog/schedules", concert_id=1)
    planner.run("catalog/seats_left", concert_id=1)
    marked = {"numbers": "{1,2}", "versions": "{1,1}"}
    assert planner.run("seats/seat_map", schedule_id=1, all_versions=True, **marked) == 2


def hold(planner: Planner, person: str, schedule_id: int = 1, **asked: Any) -> str:
    """Of a schedule of concert 2's."""
    nothing = {"numbers": None, "best": None, "section": None, "patient": False}
    held = planner.document(
        "seats/hold_seats", person=person, key=f"{asked}", body_hash="hash", concert_id=2, pass_id="a new pass",
        schedule_id=schedule_id, hold_ttl_s=300, hold_cap_s=900, correlation_id="test", **(nothing | asked),
    )  # fmt: skip
    assert held["outcome"] == "held", held
    return str(held["answer"]["reservation_id"])


def begin_payment(planner: Planner, person: str, reservation_id: str) -> str:
    begun = planner.document(
        "payment/begin_payment", person=person, key="pay", body_hash="hash", concert_id=2, gateway="danal",
        reservation_id=reservation_id, method="card", deadline_s=600,
    )  # fmt: skip
    assert begun["outcome"] == "begun", begun
    return str(begun["payment"]["payment_id"])


def settle(planner: Planner, payment_id: str, outcome: str) -> None:
    planner.run(
        "payment/settle_payment", payment_id=payment_id, gateway="danal", outcome=outcome, detail=outcome,
        hold_after_decline_s=6000, correlation_id="test", turn_to="payco", turn_s_min=30, deadline_s=120,
    )  # fmt: skip


def tell_the_world(planner: Planner, reservation_id: str) -> None:
    planner.run("tickets/unpublished_events", topic="events", limit=500)
    planner.run("tickets/mark_published", ids=[1, 2, 3])
    planner.run("tickets/set_aside", ids=[4, 5], errors=["test", "test"])
    planner.run("tickets/backlog", limit=100_000)
    planner.run("tickets/prune_outbox", kept_s=86_400, limit=1_000)
    planner.run("tickets/prune_inbox", kept_s=86_400, limit=1_000)
    consume(planner, reservation_id, "reservation.held", "reservation.confirmed")
    planner.run("tickets/unsent_notices", limit=500)
    planner.run("tickets/mark_notices", tried=[_SOMEBODY_S], sent=[_SOMEBODY_S])
    set_aside(planner)


def consume(planner: Planner, reservation_id: str, *kinds: str) -> None:
    events = [
        {"event_id": str(uuid.uuid4()), "type": kind, "reservation_id": reservation_id, "seq": 0, "data": {},
         "ticket_code": uuid.uuid4().hex}
        for kind in kinds
    ]  # fmt: skip
    for consumer in ("tickets/issue_tickets", "sales/count_sales"):
        planner.run(consumer, events=msgspec.json.encode(events).decode())


def set_aside(planner: Planner) -> None:
    record = {"topic": "events", "partition": 1, "offset": 1, "type": None, "correlation_id": "test"}
    planner.run(
        "events/fail_event", consumer="sales", event_id=_SOMEBODY_S, error="test", transient=True, attempts_max=1,
        record=msgspec.json.encode(record).decode(), key=b"key", value=b"value", dead_letter_topic="dead",
    )  # fmt: skip
    planner.run("events/dead_letters", state="waiting", id=None, limit=9)
    planner.run("events/dead_letter_record", id=1)
    planner.run("events/redrive_dead_letters", ids=None, limit=9, backoff_s=0.0, redrives_max=9)
    planner.run("events/count_dead_letters")
    planner.run("events/discard_dead_letter", id=1, reason="test", discarded_by="test")


def refund(planner: Planner, person: str, reservation_id: str, payment_id: str) -> None:
    planner.run("payment/refund_reservation", cancellation._REFUND, person=person, reservation_id=reservation_id,
                correlation_id="test")  # fmt: skip
    planner.run("payment/finish_refund", settlement._FINISH_REFUND, payment_id=payment_id, correlation_id="test")
    consume(planner, reservation_id, "reservation.refunded")


def sweep(planner: Planner) -> None:
    planner.run("payment/open_payments")
    planner.run("payment/claim_unsettled", gateways=_FIRMS, limit=16, backoff_s_max=15)
    planner.run("payment/claim_payment", gateways=_FIRMS, reservation_id=_SOMEBODY_S, backoff_s_max=15, job=1)
    claimed = planner.run("", "select id::text from payment where status = 'pending' limit 1")
    planner.run("payment/begin_cancellation", payment_id=claimed, give_up=True)
    settle(planner, claimed, "cancelled")
    assert planner.document("seats/expire_next_hold", holds._EXPIRE_NEXT, after="-infinity",
                            correlation_id="test")["closed"]  # fmt: skip
    planner.run("seats/forget_old_keys", limit=5000)
    planner.run("seats/change_reads", reads._CHANGE, concert_id=2, source="database", changed_by="test", reason="test")
    planner.run("seats/reads_to_repeat", seconds=900)
    planner.run("seats/reads", concert_id=2, changes=10)


def run_the_line(planner: Planner) -> None:
    planner.run("queue/open_line", restore._OPEN_LINE, concert_id=2, pass_life_s=600, hold_s=15)
    planner.run("queue/change_gate", gate._CHANGE_GATE, concert_id=2, action="rate", value="100", changed_by="test",
                reason="test")  # fmt: skip
    planner.run("queue/gate", concert_id=2, changes=10)
    planner.run("queue/has_reservation", person="buyer 7", concert_id=2)
    planner.run("queue/ended_turns", pass_ids=["pass 1", "pass 2"])
    planner.run("queue/running_lines")
    columns = {
        "pass_ids": ["pass 1"], "persons": ["buyer 1"], "epochs": [1], "numbers": [9], "places": [9],
        "entered_afters": [0], "gate_change_ids": [1], "admitteds_us": [9], "claimeds_us": [9], "expireds_us": [9],
        "endeds_us": [9], "end_reasons": ["paid"], "ended_afters": [9],
    }  # fmt: skip
    planner.run("queue/copy_admissions", concert_id=2, **columns)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def whole_readings(plans: Plans) -> dict[str, set[str]]:
    """Which big tables (or all of an index) each statement reads from one end to the other."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, explained in plans.items():
        for node in (node for one in explained for node in nodes(one["Plan"])):
            kind, relation = node["Node Type"], node.get("Relation Name", "")
            whole_index = "Index" in kind and "Index Cond" not in node and node["Index Name"] not in _READ_WHOLE
            if _BIG.match(relation) and (kind.endswith("Seq Scan") or whole_index):
                found[name].add(relation)
    return dict(found)


def test_no_statement_reads_a_big_table_whole(planner: Planner) -> None:
    book(planner)

    assert whole_readings(planner.plans) == {}


def test_plans_that_are_kept_are_not_for_the_empty_tables_of_a_first_sale(small_planner: Planner) -> None:
    """A connection keeps them until its server has looked at the tables again, which may be after the rush."""
    paid = begin_payment(small_planner, "buyer 1", hold(small_planner, "buyer 1", schedule_id=201, numbers=[1, 2]))
    hold(small_planner, "buyer 2", schedule_id=201, best=2)
    settle(small_planner, paid, "captured")

    found = whole_readings(small_planner.plans)
    assert {name: found.get(name) for name in ("seats/hold_seats", "payment/settle_payment")} == {
        "seats/hold_seats": None,
        "payment/settle_payment": None,
    }


def test_every_statement_and_function_is_among_them(planner: Planner) -> None:
    book(planner)

    files = {
        f"{path.parts[-3]}/{path.stem}"
        for path in _BOOKING.glob("*/sql/*.sql")
        if path.parts[-3] not in _ADMINISTRATION
    }
    assert files <= planner.plans.keys()
    told = " ".join(plan["Query Text"] for explained in planner.plans.values() for plan in explained)
    bodies = [path.read_text() for path in _BOOKING.glob("*/sql/functions/*.sql")]
    for path in _BOOKING.glob("*/sql/functions/*.sql"):
        if path.parts[-4] in _ADMINISTRATION:
            continue
        called = re.compile(rf"\b{path.stem}\(")
        assert called.search(told) or any(called.search(body.partition("language")[2]) for body in bodies), path.stem


@pytest.mark.parametrize("planner", ["force_generic_plan"], indirect=True)
def test_who_looks_at_a_pending_reservation_does_not_look_through_all_that_are_pending(planner: Planner) -> None:
    planner.run("payment/claim_payment", gateways=_FIRMS, reservation_id=_SOMEBODY_S, backoff_s_max=15, job=1)

    explained = planner.plans["payment/claim_payment"]
    indexes = {node["Index Name"] for one in explained for node in nodes(one["Plan"]) if "Index Name" in node}
    assert indexes <= {"payment_one_live", "payment_of_reservation", "payment_pkey"}


_NEEDED_BY = {
    "schedule_of_concert": "catalog/schedules",
    "schedule_sales_of_concert": "catalog/concert",
    "concert_sales_best": "catalog/best_selling",
    "reservation_of_person": "seats/hold_seats",
    "reservation_expiring": "seats/expire_next_hold",
    "seat_ledger_of_reservation": "seats/reservation",
    "idempotency_age": "seats/forget_old_keys",
    "payment_of_reservation": "seats/reservation",
    "payment_unsettled": "payment/claim_unsettled",
    "outbox_unpublished": "tickets/unpublished_events",
    "outbox_published": "tickets/prune_outbox",
    "inbox_done": "tickets/prune_inbox",
    "notice_unsent": "tickets/unsent_notices",
    "gate_change_of_concert": "queue/gate",
    "gate_change_started": "queue/running_lines",
}
_FOR_OTHER_DATA = {
    "dead_letter_by_state",  # dead letters are few
    "admission_unexpired",  # a line that has been restarted: open_line asks for those still inside by older tokens
    "notice_of_reservation",  # who looks for what a person was told
    "outbox_set_aside",  # Kafka has refused many: without it the few that are unpublished are looked through twice
    "reads_change_of_concert",  # operators who have switched reads often
}


@pytest.mark.parametrize(("index", "statement"), _NEEDED_BY.items())
@pytest.mark.parametrize("planner", ["force_generic_plan"], indirect=True)
def test_without_its_index_a_statement_reads_the_table_whole(planner: Planner, index: str, statement: str) -> None:
    planner.execute(f"drop index {index}")

    book(planner)

    assert statement in whole_readings(planner.plans)


@pytest.mark.parametrize("planner", ["force_custom_plan"], indirect=True)
def test_without_its_key_the_seat_table_is_read_whole_by_every_step(planner: Planner) -> None:
    planner.execute("alter table seat drop constraint seat_pkey")

    book(planner)

    assert {"seats/seat_map", "seats/hold_seats", "payment/settle_payment", "seats/cancel_hold"} <= {
        name for name, tables in whole_readings(planner.plans).items() if tables & {"seat", "seat_0"}
    }


@pytest.mark.parametrize("planner", ["force_custom_plan"], indirect=True)
def test_every_index_that_is_there_for_speed_is_needed(planner: Planner) -> None:
    there = planner.run(
        "",
        "select array_agg(indexrelid::regclass::text) from pg_index join pg_class on pg_class.oid = indrelid"
        " where relnamespace = 'public'::regnamespace and not indisunique",
    )

    assert {name for name in there if not name.startswith("ix_")} == set(_NEEDED_BY) | _FOR_OTHER_DATA
