"""Transactions that sit on seats: which are ended and recorded, and which are left alone."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pg8000.native
import pytest
from pg8000.exceptions import DatabaseError, InterfaceError

import booking.operations
from booking.operations.long_locks import (
    LEFT_ALONE,
    NoLockHolder,
    end_lock_holder,
    end_long_locks,
    lock_holders,
    long_lock_record,
)
from booking.platform import loops
from booking.platform.migrate import migrate
from booking.platform.postgres import primary
from encore_stack.instance import Instance
from encore_stack.parts.postgres import connect
from encore_stack.ports import HOST
from support.shop import Shop
from support.superuser import superuser
from support.waiting import wait_for

OPERATOR = "encore_test_operator"
LOCK_SEATS = "select number from seat where schedule_id = :schedule_id and number = any (cast(:numbers as integer[]))"
LOCK_SEAT_1 = "number from seat where schedule_id = {} and number = 1"
BOUND_S = 0.3
_LOCK_HOLDERS = Path(booking.operations.__file__).parent / "sql" / "functions" / "lock_holders.sql"

both_ways = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without the guard"])
"""The test as it must be, and its negative control: without the guard it would be ended."""


class Session:
    """Somebody's own connection to the database of these tests."""

    def __init__(self, instance: Instance, user: str = "encore", application_name: str = "psql") -> None:
        [[database]] = primary().rows("select current_database()")
        passwords = instance.secrets()
        known = {"encore": passwords["database_password"], "postgres": passwords["postgres_password"]}
        self._connection = pg8000.native.Connection(
            user,
            host=HOST,
            port=instance.ports[instance.postgres_primary],
            database=database,
            password=known.get(user, OPERATOR),
            application_name=application_name,
            ssl_context=False,
        )
        self.pid = self.run("select pg_backend_pid()")[0][0]

    def run(self, sql: str, **parameters: Any) -> Any:
        return self._connection.run(sql, **parameters)

    def sit_on(self, schedule_id: int, numbers: list[int]) -> None:
        """Begin a transaction that locks these seats, and leave it at that."""
        self.run("begin")
        self.run(f"{LOCK_SEATS} for update", schedule_id=schedule_id, numbers=numbers)

    def is_there(self) -> bool:
        with suppress(InterfaceError, DatabaseError, OSError):
            return bool(self.run("select true")[0][0])
        return False

    def close(self) -> None:
        with suppress(InterfaceError, DatabaseError, OSError):
            self._connection.close()


@pytest.fixture
def session(instance: Instance) -> Iterator[Callable[..., Session]]:
    opened: list[Session] = []

    def make(**options: str) -> Session:
        opened.append(Session(instance, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def beside() -> Iterator[Callable[..., Future[Any]]]:
    """Runs something in a thread of its own."""
    with ThreadPoolExecutor(4) as threads:
        yield threads.submit


@pytest.fixture(autouse=True)
def short_bound(use_settings: Callable[..., object]) -> None:
    use_settings(long_lock_s_max=BOUND_S)


def wait_until_old(session: Session) -> None:
    """Return when the session's transaction is older than the bound, by the database's clock."""
    age = "select clock_timestamp() - xact_start > make_interval(secs => :bound) from pg_stat_activity where pid = :pid"
    wait_for(lambda: primary().value(age, bound=BOUND_S + 0.05, pid=session.pid), every_s=0.02)


def wait_until_it_waits(count: int = 1) -> None:
    """Return when so many sessions of this database wait for a lock."""
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        " and pid <> pg_backend_pid()"
    )
    wait_for(lambda: primary().value(waiting) == count, every_s=0.01)


@pytest.fixture
def take_out(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Takes a condition out of the SQL function that says who sits there: the negative control of what it guards."""
    definition = _LOCK_HOLDERS.read_text()

    def take(guard: str) -> None:
        assert definition.count(guard) == 1
        primary().rows(definition.replace(guard, ""))

    yield take
    primary().rows(definition)


def record_of(session: Session) -> dict[str, Any] | None:
    return next((one for one in long_lock_record(20) if one["pid"] == session.pid), None)


def test_an_idle_transaction_that_sits_on_seats_is_ended_and_recorded_and_the_buyer_goes_on(
    shop: Shop, session: Callable[..., Session], beside: Callable[..., Future[Any]]
) -> None:
    culprit = session()
    culprit.sit_on(shop.concert_id, [1, 2])
    wait_until_old(culprit)
    buyer = beside(shop.hold, [2], "buyer")
    wait_until_it_waits()

    assert end_long_locks() == 1

    assert buyer.result()["status"] == "held"
    assert not culprit.is_there()
    record = record_of(culprit)
    assert record is not None
    assert record["role"] == "encore" and record["application_name"] == "psql" and record["client"] == HOST
    assert record["state"] == "idle in transaction" and record["query"].startswith("select number from seat")
    assert record["holds"] == ["seat"] and record["waiting"] == 1
    assert record["ended_by"] == "every_minute_end_long_locks" and record["fault"] is None
    assert record["started_at"] < record["found_at"] <= record["ended_at"] and record["held_s"] > BOUND_S


def test_an_idle_transaction_is_ended_before_anybody_waits_for_it(shop: Shop, session: Callable[..., Session]) -> None:
    culprit = session()
    culprit.sit_on(shop.concert_id, [1])
    wait_until_old(culprit)

    assert end_long_locks() == 1

    assert not culprit.is_there()


def test_who_sits_on_a_reservation_and_on_a_person_is_ended(shop: Shop, session: Callable[..., Session]) -> None:
    reservation = shop.hold([1], "buyer")
    culprit, other = session(), session()
    culprit.run("begin")
    culprit.run("update reservation set total = total where id = cast(:id as uuid)", id=reservation["reservation_id"])
    other.run("begin")
    other.run("select pg_advisory_xact_lock(hashtextextended(:person, 0))", person=shop.shopper("buyer").person)
    wait_until_old(other)

    assert end_long_locks() == 2

    assert record_of(culprit)["holds"] == ["reservation"]  # type: ignore[index]
    assert record_of(other)["holds"] == ["person"]  # type: ignore[index]
    assert shop.hold([2], "buyer")["status"] == "held"


@pytest.mark.parametrize(
    ("table", "mode"),
    [("seat_ledger", "share"), ("outbox", "exclusive"), ("concert", "access exclusive")],  # the first: an index is made
)
def test_who_has_a_table_as_a_whole_that_each_hold_needs_is_ended(
    shop: Shop, session: Callable[..., Session], beside: Callable[..., Future[Any]], table: str, mode: str
) -> None:
    culprit = session()
    culprit.run("begin")
    culprit.run(f"lock table {table} in {mode} mode")
    wait_until_old(culprit)
    buyer = beside(shop.hold, [1], "buyer")
    wait_until_it_waits()

    assert end_long_locks() == 1

    assert buyer.result()["status"] == "held"
    assert record_of(culprit)["holds"] == [table]  # type: ignore[index]


def test_a_statement_that_runs_on_is_ended_only_where_somebody_waits(
    shop: Shop, session: Callable[..., Session], beside: Callable[..., Future[Any]]
) -> None:
    busy = session()
    statement = f"perform {LOCK_SEAT_1.format(shop.concert_id)} for update; perform pg_sleep(30);"
    running = beside(busy.run, f"do $$ begin {statement} end $$")
    wait_for(lambda: any(one["pid"] == busy.pid for one in lock_holders()))
    wait_until_old(busy)
    assert end_long_locks() == 0

    buyer = beside(shop.hold, [1], "buyer")
    wait_until_it_waits()

    assert end_long_locks() == 1
    assert buyer.result()["status"] == "held"
    assert record_of(busy)["state"] == "active"  # type: ignore[index]
    assert isinstance(running.exception(), (DatabaseError, InterfaceError, OSError))


def test_a_short_transaction_is_left_alone_whoever_waits(
    shop: Shop,
    session: Callable[..., Session],
    beside: Callable[..., Future[Any]],
    use_settings: Callable[..., object],
) -> None:
    use_settings(long_lock_s_max=60)
    short = session()
    short.sit_on(shop.concert_id, [1])
    buyer = beside(shop.hold, [1], "buyer")
    wait_until_it_waits()

    assert end_long_locks() == 0

    short.run("commit")
    assert buyer.result()["status"] == "held"
    assert record_of(short) is None


@both_ways
def test_who_locks_nothing_of_the_sale_is_left_alone(
    shop: Shop, session: Callable[..., Session], take_out: Callable[[str], None], guarded: bool
) -> None:
    if not guarded:
        take_out(" and a.backend_xid is not null")
    reader, nobody, elsewhere = session(), session(), session()
    reader.run("begin")
    reader.run(LOCK_SEATS, schedule_id=shop.concert_id, numbers=[1])
    nobody.run("begin")
    nobody.run(f"{LOCK_SEATS} for update", schedule_id=-1, numbers=[1])
    elsewhere.run("begin")
    elsewhere.run("update concert set title = title where id = :id", id=shop.concert_id)
    wait_until_old(elsewhere)

    assert end_long_locks() == (0 if guarded else 1)

    assert reader.is_there() and nobody.is_there() == guarded and elsewhere.is_there()


@both_ways
def test_the_leader_of_a_loop_is_left_alone_even_in_a_transaction(
    session: Callable[..., Session], take_out: Callable[[str], None], guarded: bool
) -> None:
    if not guarded:
        take_out(" and l.objsubid = 1")
    lease = loops.Lease("test_long_locks")
    assert lease.held()
    by_hand = session()
    by_hand.run("begin")
    by_hand.run("select pg_advisory_lock(:space, 1)", space=loops._LOCK_SPACE)
    wait_until_old(by_hand)

    assert end_long_locks() == (0 if guarded else 1)

    assert lease.held() and by_hand.is_there() == guarded
    lease.release()


def test_replication_and_what_runs_under_a_name_of_its_own_is_left_alone(
    shop: Shop, session: Callable[..., Session]
) -> None:
    replication = "select pid from pg_stat_replication where state = 'streaming' order by pid"
    before = primary().rows(replication)
    meant = [session(application_name=name) for name in LEFT_ALONE]
    for nth, one in enumerate(meant, start=1):
        one.sit_on(shop.concert_id, [nth])
    wait_until_old(meant[-1])

    assert end_long_locks() == 0

    assert before and primary().rows(replication) == before
    assert all(one.is_there() for one in meant)
    for one in meant:
        one.run("rollback")


def test_a_migration_runs_under_a_name_that_is_left_alone(
    instance: Instance, make_database: Callable[[str], str]
) -> None:
    url = make_database("encore_named")
    with (
        ThreadPoolExecutor(1) as threads,
        closing(connect(instance, instance.postgres_primary, database="encore_named")) as other,
    ):
        other.run("begin")
        other.run("select pg_advisory_xact_lock(:key)", key=0x656E636F7265)
        threads.submit(migrate, url)

        waits = (
            "select application_name from pg_stat_activity where datname = 'encore_named' and wait_event = 'advisory'"
        )
        assert wait_for(lambda: primary().rows(waits)) == [["encore-migrate"]]


@both_ways
def test_only_who_sits_there_is_ended_and_who_queues_behind_is_counted(
    shop: Shop,
    session: Callable[..., Session],
    beside: Callable[..., Future[Any]],
    take_out: Callable[[str], None],
    guarded: bool,
) -> None:
    if not guarded:
        take_out("and not exists (select from locked w where w.pid = a.pid and not w.granted)")
    first, second = session(), session()
    first.sit_on(shop.concert_id, [1])
    second.sit_on(shop.concert_id, [2])
    queued = beside(lambda: second.run(f"{LOCK_SEATS} for update", schedule_id=shop.concert_id, numbers=[1]))
    buyer = beside(shop.hold, [1], "buyer")
    wait_until_it_waits(2)
    wait_until_old(second)

    assert end_long_locks() == (1 if guarded else 2)

    assert not first.is_there() and record_of(first)["waiting"] == 2  # type: ignore[index]
    if not guarded:
        assert not second.is_there() and buyer.result()["status"] == "held"
        return
    assert queued.result() == [[1]] and record_of(second) is None
    second.run("rollback")
    assert buyer.result()["status"] == "held"


@pytest.fixture
def operator(instance: Instance, database_url: str) -> Iterator[str]:
    """A role of a person's own, which is not the booking role's."""
    database = database_url.rsplit("/", 1)[1]
    with closing(connect(instance, instance.postgres_primary, "postgres", database)) as owner:
        owner.run(f"create role {OPERATOR} login password '{OPERATOR}'")
        owner.run(f"grant select, update on seat to {OPERATOR}")
        yield OPERATOR
        owner.run(f"drop owned by {OPERATOR}")
        owner.run(f"drop role {OPERATOR}")


def test_another_roles_session_is_ended(shop: Shop, session: Callable[..., Session], operator: str) -> None:
    culprit = session(user=operator)
    culprit.sit_on(shop.concert_id, [1])
    wait_until_old(culprit)

    assert end_long_locks() == 1

    record = record_of(culprit)
    assert record is not None and record["role"] == operator and not culprit.is_there()


def test_a_superusers_session_is_recorded_once_and_its_end_noted(shop: Shop, session: Callable[..., Session]) -> None:
    culprit = session(user="postgres")
    culprit.sit_on(shop.concert_id, [1])
    wait_until_old(culprit)

    assert end_long_locks() == end_long_locks() == 0

    record = record_of(culprit)
    assert record is not None and "superuser" in record["fault"]
    assert record["ended_at"] is None and record["ended_by"] is None
    assert [one["pid"] for one in long_lock_record(20)].count(culprit.pid) == 1
    culprit.run("rollback")
    assert end_long_locks() == 0
    assert record_of(culprit)["ended_by"] == "itself"  # type: ignore[index]


def test_an_operator_ends_a_session_that_the_job_would_not(shop: Shop, session: Callable[..., Session]) -> None:
    culprit = session(application_name=LEFT_ALONE[0])
    culprit.sit_on(shop.concert_id, [1])

    assert end_lock_holder(culprit.pid, "somebody@here")["ended_by"] == "somebody@here"

    assert not culprit.is_there()
    with pytest.raises(NoLockHolder):
        end_lock_holder(culprit.pid, "somebody@here")


@both_ways
def test_a_commit_that_waits_for_its_replica_is_left_alone(
    shop: Shop,
    instance: Instance,
    session: Callable[..., Session],
    beside: Callable[..., Future[Any]],
    take_out: Callable[[str], None],
    guarded: bool,
) -> None:
    """Ended, it would show what its replica has never heard of."""
    if not guarded:
        take_out("and (a.wait_event is null or a.wait_event <> 'SyncRep')")
    committing = session()
    with superuser(instance) as server:
        server.run("set synchronous_commit = local")
        try:
            committing.sit_on(shop.concert_id, [1])
            committing.run("update seat set price = price where schedule_id = :id and number = 1", id=shop.concert_id)
            server.run("alter system set synchronous_standby_names = 'nobody'")
            server.run("select pg_reload_conf()")
            wait_for(lambda: committing.run("show synchronous_standby_names") == [["nobody"]], every_s=0.01)
            server.run("checkpoint")  # commits wait from when the checkpointer has read the setting, too
            commit = beside(committing.run, "commit")
            waits = "select wait_event from pg_stat_activity where pid = :pid"
            wait_for(lambda: server.run(waits, pid=committing.pid) == [["SyncRep"]], every_s=0.01)
            wait_until_old(committing)
            buyer = beside(shop.hold, [1], "buyer")
            wait_until_it_waits()

            found = lock_holders()
        finally:
            server.run("alter system reset synchronous_standby_names")
            server.run("select pg_reload_conf()")
    commit.result()
    assert buyer.result()["status"] == "held"
    assert [one["pid"] for one in found] == ([] if guarded else [committing.pid])
