"""Postgres fails over, restarts, hangs, comes back: writes follow the one primary, reads go on, nobody waits long."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from booking.platform import postgres_hosts
from booking.platform.loops import Lease
from booking.platform.migrate import writer_url
from booking.platform.postgres import DatabaseAway, Server
from encore_stack.parts import postgres
from encore_stack.parts.postgres_data import mark_replaced
from support.postgres import PostgresPair
from support.waiting import wait_for

_WAIT_S_MAX = 10
_WRITE = "insert into said (words) values (:words) returning 1"
_READ = "select count(*) from said"


@pytest.fixture(scope="module")
def pair() -> Iterator[PostgresPair]:
    pair = PostgresPair()
    pair.ask(pair.primary, "create table said (words text); alter table said owner to encore")
    wait_for(lambda: pair.ask(pair.replica, "select to_regclass('said')")[0][0])
    yield pair
    pair.close()


@pytest.fixture(autouse=True)
def well(
    pair: PostgresPair, use_settings: Callable[..., object], as_another_process: Callable[[], None]
) -> Iterator[None]:
    use_settings(
        database_url=pair.instance.database_url(),
        replica_url=pair.instance.replica_url,
        statement_timeout_ms=400,
        connect_timeout_s=0.4,
    )
    yield
    pair.heal()


@pytest.fixture
def as_another_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget what this process knows of its servers: the connections opened from then on are another's."""

    def forget() -> None:
        monkeypatch.setattr(postgres_hosts, "_databases", {})

    forget()
    return forget


@pytest.fixture
def connect(pair: PostgresPair) -> Iterator[Callable[..., Server]]:
    """A connection as a thread of a function has it."""
    made: list[Server] = []

    def make(*, writes: bool = True) -> Server:
        url = pair.instance.database_url() if writes else pair.instance.replica_url
        made.append(Server(url, writes=writes))
        return made[-1]

    yield make
    for server in made:
        server.close()


def port_of(server: Server) -> int:
    return int(server.value("select inet_server_port()"))


def write_at_last(server: Server, words: str) -> None:
    """Write as a client does that is told to come back."""

    def is_written() -> bool:
        try:
            return bool(server.rows(_WRITE, words=words))
        except DatabaseAway as away:
            assert away.retry_after_s
            return False

    wait_for(is_written, within_s=_WAIT_S_MAX)


@contextmanager
def reading(server: Server) -> Iterator[list[BaseException | None]]:
    """Read without a pause meanwhile; a list of how each read went."""
    outcomes: list[BaseException | None] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                server.rows(_READ)
                outcomes.append(None)
            except Exception as fault:
                outcomes.append(fault)
            time.sleep(0.002)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(read)
        try:
            yield outcomes
        finally:
            over.set()


def test_writes_follow_the_primary_and_reads_never_stop(pair: PostgresPair, connect: Callable[..., Server]) -> None:
    writer, reader, ports = connect(), connect(writes=False), pair.instance.ports
    before, promoted = pair.primary, pair.replica
    writer.rows(_WRITE, words="before")
    assert (port_of(writer), port_of(reader)) == (ports[before], ports[promoted])

    with reading(reader) as reads:
        pair.kill(before)
        with pytest.raises(DatabaseAway) as away:
            writer.rows(_WRITE, words="in between")
        pair.stack.promote(promoted)
        write_at_last(writer, "after the failover")
        pair.stack.start(before)

    assert away.value.retry_after_s
    assert port_of(writer) == ports[promoted]
    assert reads and not any(reads)
    assert pair.roles() == {before: f"replica of {promoted}", promoted: "primary"}
    assert pair.ask(before, "select count(*) from said where words = 'after the failover'") == [[1]]


def test_a_read_on_the_server_that_dies_is_answered_by_the_other(
    pair: PostgresPair, connect: Callable[..., Server]
) -> None:
    reader = connect(writes=False)
    with reading(reader) as reads:
        pair.kill(pair.replica)
        wait_for(lambda: len(reads) >= 200, within_s=_WAIT_S_MAX)

    assert not any(reads)
    assert port_of(reader) == pair.instance.ports[pair.primary]


def test_reads_go_back_to_the_replica_when_there_is_one_again(
    pair: PostgresPair, connect: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, ports = connect(writes=False), pair.instance.ports
    port_of(reader)
    before, promoted = pair.fail_over()
    monkeypatch.setattr(postgres_hosts, "_STANDBY_AGAIN_S", 0.0)

    assert [port_of(reader) for _ in range(3)] == [ports[promoted]] * 3
    pair.stack.start(before)
    reader.rows(_READ)  # the old connection has not heard yet that its server was promoted

    assert port_of(reader) == ports[before]


def test_a_primary_that_was_killed_and_comes_back_is_written_to_again(
    pair: PostgresPair, connect: Callable[..., Server]
) -> None:
    writer = connect()
    writer.rows(_WRITE, words="before")
    pair.kill(pair.primary)
    with pytest.raises(DatabaseAway):
        writer.rows(_WRITE, words="in between")
    pair.stack.start(pair.primary)

    write_at_last(writer, "after")


def test_a_statement_that_meets_a_server_which_takes_no_writes_goes_to_the_one_that_does(
    pair: PostgresPair, connect: Callable[..., Server]
) -> None:
    """Also one that must not run twice: it has not run at all. The replica stands for a primary that was demoted."""
    writer = connect()
    writer.rows(_WRITE, words="before")
    known = postgres_hosts.database(pair.instance.database_url())
    to_replica = connect(writes=False)
    port_of(to_replica)
    writer._opened, to_replica._opened = to_replica._opened, None
    writer._prepared.clear()
    assert writer._opened is not None
    known.writer = writer._opened.host

    writer.rows(_WRITE, safe_to_repeat=False, words="after")

    assert port_of(writer) == pair.instance.ports[pair.primary]


def test_an_old_primary_that_comes_back_is_never_written_to(
    pair: PostgresPair, connect: Callable[..., Server], as_another_process: Callable[[], None]
) -> None:
    writer = connect()
    writer.rows(_WRITE, words="before")
    old, promoted = pair.fail_over()
    pair.bring_back_as_primary(old)

    for _ in range(3):
        writer.rows(_WRITE, words="beside the old one")
        as_another_process()
        writer = connect()
    with closing(Server(pair.instance.database_url(old, promoted))) as server:
        server.rows(_WRITE, words="beside the old one")
    tool = writer_url(pair.instance.database_url())

    assert pair.ask(old, "select count(*) from said where words = 'beside the old one'") == [[0]]
    assert tool == pair.instance.database_url(promoted)


def test_without_the_timelines_the_old_primary_would_be_written_to(
    pair: PostgresPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: whoever comes first in the URL is believed."""
    old, promoted = pair.fail_over()
    pair.bring_back_as_primary(old)
    monkeypatch.setattr(postgres_hosts.Database, "_newest", lambda self, found: found[0])

    with closing(Server(pair.instance.database_url(old, promoted))) as server:
        server.rows(_WRITE, words="lost")

    assert pair.ask(old, "select count(*) from said where words = 'lost'") == [[1]]


@pytest.mark.parametrize("is_guarded", [True, False], ids=["guarded", "not guarded"])
def test_a_primary_that_hung_while_it_was_replaced(
    pair: PostgresPair, connect: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, is_guarded: bool
) -> None:
    """It goes on where it stood, and connections to it are as good as ever. One thread has noticed; that is enough."""
    busy, idle = connect(), connect()
    for writer in (busy, idle):
        writer.rows(_WRITE, words="before")
    old, promoted = pair.primary, pair.replica
    pair.hang(old)
    with pytest.raises(DatabaseAway):
        busy.rows(_WRITE, words="in between")
    postgres.promote(pair.instance, promoted)  # and nobody has ended the old one, as scripts/stack promote does
    write_at_last(busy, "after")
    pair.go_on(old)
    known = postgres_hosts.database(pair.instance.database_url())
    known.silence(("127.0.0.1", pair.instance.ports[old])).heard(0.0)  # as a moment later
    if not is_guarded:
        monkeypatch.setattr(Server, "_is_outdated", lambda self, opened: False)

    idle.rows(_WRITE, words=f"idle {is_guarded}")

    on_old = pair.ask(old, f"select count(*) from said where words = 'idle {is_guarded}'")
    pair.kill(old)
    mark_replaced(pair.instance, old)
    assert on_old == [[0 if is_guarded else 1]]


def test_a_hung_primary_costs_about_one_timeout_and_reads_none(
    pair: PostgresPair, connect: Callable[..., Server]
) -> None:
    writers, reader = [connect() for _ in range(20)], connect(writes=False)
    for writer in writers:
        writer.rows(_WRITE, words="before")
    port_of(reader)
    pair.hang(pair.primary)

    started_s = time.monotonic()
    for writer in writers:
        with pytest.raises(DatabaseAway):
            writer.rows(_WRITE, words="in between")
        reader.rows(_READ)
    took_s = time.monotonic() - started_s

    assert took_s < 5  # each on its own would wait for a statement (0.8 s): 16 s
    pair.go_on(pair.primary)
    write_at_last(writers[0], "after")


def test_a_hung_replica_costs_readers_about_one_timeout(pair: PostgresPair, connect: Callable[..., Server]) -> None:
    readers = [connect(writes=False) for _ in range(20)]
    for reader in readers:
        port_of(reader)
    pair.hang(pair.replica)

    started_s = time.monotonic()
    refused = 0
    for reader in readers:
        try:
            reader.rows(_READ)
        except DatabaseAway:
            refused += 1  # read_anywhere turns to the primary
    took_s = time.monotonic() - started_s

    assert refused <= 3
    assert took_s < 5


def test_a_loop_leads_on_the_new_primary(pair: PostgresPair) -> None:
    lease, rival = Lease("failover"), Lease("failover")
    try:
        assert lease.held() and not rival.held()
        _, promoted = pair.fail_over()
        wait_for(lambda: lease.held() or rival.held(), within_s=_WAIT_S_MAX)

        assert [lease.held(), rival.held()].count(True) == 1
        assert pair.ask(promoted, "select count(*) from pg_locks where locktype = 'advisory'") == [[1]]
    finally:
        lease.release()
        rival.release()


# -- the stack -------------------------------------------------------------------------------------------------------


def test_after_a_failover_nothing_starts_a_second_primary(pair: PostgresPair) -> None:
    old, promoted = pair.fail_over()
    now = {old: f"replica of {promoted}", promoted: "primary"}
    pair.stack.supervisor.start_part(old)  # behind the stack's back: its data say that it is no primary any more
    pair.await_answer(old)
    assert pair.ask(old, "select pg_is_in_recovery()") == [[True]]
    pair.kill(old)

    assert pair.stack.up(["postgres"]) == [old]
    assert pair.roles() == now
    pair.stack.down()
    pair.stack.up(["postgres"])
    assert pair.roles() == now


def test_a_primary_that_is_well_hands_over_everything(pair: PostgresPair, connect: Callable[..., Server]) -> None:
    writer, old, promoted = connect(), pair.primary, pair.replica
    for number in range(20):
        writer.rows(_WRITE, words=f"handed over {number}")

    assert pair.stack.promote(promoted) == old
    assert [part.health for part in pair.stack.status() if part.name == old] == ["held"]
    write_at_last(writer, "handed over after")

    assert pair.ask(promoted, "select count(*) from said where words like 'handed over%'") == [[21]]


def test_a_primary_that_hangs_is_ended_before_another_is_made(
    pair: PostgresPair, connect: Callable[..., Server]
) -> None:
    writer, old, promoted = connect(), pair.primary, pair.replica
    writer.rows(_WRITE, words="before")
    pair.hang(old)

    pair.stack.promote(promoted)

    assert postgres.processes_of(pair.instance, old) == []
    write_at_last(writer, "after")


def test_a_promotion_that_was_broken_off_is_finished_at_the_next_start(pair: PostgresPair) -> None:
    old, promoted = pair.primary, pair.replica
    pair.kill(old)
    mark_replaced(pair.instance, old)
    pair.kill(promoted)

    pair.stack.up(["postgres"])

    assert pair.roles() == {old: f"replica of {promoted}", promoted: "primary"}


def test_what_only_the_old_primary_had_is_taken_back(pair: PostgresPair) -> None:
    old, promoted = pair.primary, pair.replica
    pair.kill(promoted)
    pair.ask(old, "insert into said values ('only here')")
    pair.kill(old)
    pair.stack.supervisor.start_part(promoted)
    pair.await_answer(promoted)
    pair.stack.promote(promoted)
    pair.stack.start(old)

    assert pair.roles() == {old: f"replica of {promoted}", promoted: "primary"}
    for server in (old, promoted):
        assert pair.ask(server, "select count(*) from said where words = 'only here'") == [[0]]
    assert "copied anew" not in pair.instance.log_file(old).read_text()


def test_an_old_primary_that_cannot_be_rewound_is_copied_anew(pair: PostgresPair) -> None:
    old, promoted = pair.fail_over()
    (pair.instance.data_dir(old) / "global" / "pg_control").unlink()

    pair.stack.start(old)

    assert pair.roles() == {old: f"replica of {promoted}", promoted: "primary"}
    assert f"{old}: copied anew" in pair.instance.log_file(old).read_text()
    pair.instance.log_file(old).write_text("")


def test_synchronous_commits_wait_for_the_replica_until_somebody_says_otherwise(
    pair: PostgresPair, connect: Callable[..., Server]
) -> None:
    pair.instance.replication = "sync"
    pair.stack.up(["postgres"])
    writer = connect()
    writer.rows(_WRITE, words="on both")
    assert pair.roles()[pair.primary] == f"primary, commits wait for {pair.replica}"

    pair.kill(pair.replica)
    with pytest.raises(DatabaseAway):
        writer.rows(_WRITE, words="waits")
    pair.instance.replication = "async"
    pair.stack.start(pair.primary)
    write_at_last(writer, "on one")

    assert pair.roles()[pair.primary] == "primary"


def test_a_promoted_server_waits_for_nobody_until_it_has_a_replica(
    pair: PostgresPair, connect: Callable[..., Server]
) -> None:
    pair.instance.replication = "sync"
    pair.stack.up(["postgres"])
    old, promoted = pair.fail_over()

    write_at_last(connect(), "alone")
    assert pair.roles()[promoted] == "primary"
    pair.stack.start(old)

    assert pair.roles() == {old: f"replica of {promoted}", promoted: f"primary, commits wait for {old}"}
