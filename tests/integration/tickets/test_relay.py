"""The relay when something fails under it: nothing is lost, no reservation's events overtake, nobody is stalled."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from booking import seats
from booking.platform.postgres import Server, primary
from booking.platform.settings import settings
from booking.tickets import relay as relay_module
from booking.tickets.outbox import backlog, prune
from booking.tickets.relay import Relay
from encore_stack.instance import Instance
from encore_stack.stack import Stack
from support.shop import Shop
from support.topics import Topic

_BATCH_BYTES = 16_384
"""Of the producer: what is larger goes alone."""


@pytest.fixture(autouse=True)
def nothing_left_by_others() -> None:
    """Only this test's events wait: the tests share a database on which no relay works."""
    primary().rows("update outbox set published_at = clock_timestamp() where published_at is null")


@pytest.fixture
def topic(instance: Instance, use_settings: Callable[..., None]) -> Topic:
    topic = Topic(instance.kafka_bootstrap_servers)
    use_settings(reservation_topic=topic.name)
    return topic


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as relay:
        yield relay


def hold_and_give_back(shop: Shop, number: int = 1, name: str = "someone") -> str:
    """A reservation with two events."""
    held = shop.hold([number], name)
    seats.release_hold(held["reservation_id"], shop.shopper(name).person)
    return str(held["reservation_id"])


def unpublished() -> int:
    return backlog(primary()).count


def test_a_relay_that_dies_between_acknowledgement_and_mark_publishes_again(
    topic: Topic, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = hold_and_give_back(Shop.open())
    with monkeypatch.context() as dying, Relay() as unlucky:
        dying.setattr(relay_module, "_MARK", "select 1 / 0 where cast(:ids as bigint[]) is not null")
        with pytest.raises(Exception, match="22012"):
            unlucky.publish_batch()
    assert (topic.seqs(mine), unpublished()) == ([1, 2], 2)

    assert relay.publish_batch() == 2

    assert (topic.seqs(mine), unpublished()) == ([1, 2, 1, 2], 0)


def test_two_relays_at_once_keep_the_order_in_which_events_first_come(
    topic: Topic, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader loses its lease unawares between looking and sending; the next one works meanwhile."""
    shop = Shop.open()
    mine = [shop.hold([number], f"buyer {number}") for number in range(1, 9)]
    looked, go_on = threading.Event(), threading.Event()

    def stall(row: Any, original: Callable[[Any], Any] = relay_module._record) -> Any:
        if threading.current_thread() is former:
            looked.set()
            go_on.wait(10)
        return original(row)

    def lead() -> None:
        with Relay() as first:
            first.publish_batch()

    former = threading.Thread(target=lead)
    monkeypatch.setattr(relay_module, "_record", stall)
    former.start()
    assert looked.wait(10)
    for number, held in enumerate(mine, start=1):
        seats.release_hold(held["reservation_id"], shop.shopper(f"buyer {number}").person)
    assert relay.publish_batch() == 16
    go_on.set()
    former.join()

    assert unpublished() == 0
    for held in mine:
        assert topic.seqs(held["reservation_id"]) == [1, 2, 1]


@pytest.mark.parametrize("refused_by", ["the client", "the broker"])
def test_an_event_that_is_too_large_stalls_only_its_own_reservation(
    instance: Instance, relay: Relay, use_settings: Callable[..., None], refused_by: str
) -> None:
    limit, size = (1_000_000, 2_000_000) if refused_by == "the client" else (_BATCH_BYTES, 2 * _BATCH_BYTES)
    topic = Topic(instance.kafka_bootstrap_servers, partitions=1, **{"max.message.bytes": str(limit)})
    use_settings(reservation_topic=topic.name)
    shop = Shop.open()
    poisoned = hold_and_give_back(shop)
    primary().rows(
        "update outbox set data = jsonb_build_object('poison', repeat('x', cast(:size as integer)))"
        " where reservation_id = cast(:id as uuid) and seq = 1",
        id=poisoned,
        size=size,
    )
    others = [hold_and_give_back(shop, number, f"buyer {number}") for number in range(2, 6)]

    assert relay.publish_batch() + relay.publish_batch() == 8
    assert relay.publish_batch() == 0

    assert topic.seqs(poisoned) == []
    assert all(topic.seqs(other) == [1, 2] for other in others)
    assert (unpublished(), backlog(primary()).set_aside) == (2, 1)
    [[attempts, error, waits]] = primary().rows(
        "select attempts, last_error, next_try_at > now() from outbox"
        " where reservation_id = cast(:id as uuid) and seq = 1",
        id=poisoned,
    )
    assert (attempts, waits) == (1, True)
    assert "TooLarge" in error

    mend = "update outbox set data = '{}', next_try_at = now() where reservation_id = cast(:id as uuid)"
    primary().rows(mend, id=poisoned)
    assert relay.publish_batch() == 2
    assert topic.seqs(poisoned) == [1, 2]


def test_a_topic_that_is_not_there_stalls_nobody_else(
    topic: Topic, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "_ANSWER_WAIT_S", 0.5)
    shop = Shop.open()
    lost, mine = hold_and_give_back(shop), hold_and_give_back(shop, 2, "other")
    primary().rows("update outbox set topic = 'nowhere' where reservation_id = cast(:id as uuid)", id=lost)

    assert relay.publish_batch() == 2
    assert topic.seqs(mine) == [1, 2]
    assert backlog(primary()).set_aside == 1
    assert relay.publish_batch() == 0


def test_while_kafka_takes_nothing_nothing_is_set_aside_and_the_backlog_is_known(
    relay: Relay, use_settings: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POWERTOOLS_METRICS_DISABLED")
    use_settings(kafka_bootstrap_servers="127.0.0.1:1")
    hold_and_give_back(Shop.open())

    with pytest.raises(KafkaError):
        relay.tick()

    waiting = backlog(primary())
    assert (waiting.count, waiting.set_aside) == (2, 0)
    assert 0 < waiting.oldest_age_s < 60
    told = capsys.readouterr().out
    assert '"OutboxBacklog":[2' in told.replace(" ", "")
    assert "OutboxOldestAgeSeconds" in told


def test_a_broker_that_hangs_in_the_middle_of_a_batch(
    instance: Instance, topic: Topic, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on later, and with what it had been sent: then some events are there twice, none out of order."""
    monkeypatch.setattr(relay_module, "_ANSWER_WAIT_S", 0.5)
    shop = Shop.open()
    hold_and_give_back(shop)
    assert relay.publish_batch() == 2
    mine = [hold_and_give_back(shop, number, f"buyer {number}") for number in range(2, 7)]
    broker = Stack(instance).supervisor.processes()["kafka"].pid
    assert broker

    os.kill(broker, signal.SIGSTOP)
    try:
        with pytest.raises(KafkaError):
            relay.publish_batch()
        assert unpublished() == 10
    finally:
        os.kill(broker, signal.SIGCONT)
    monkeypatch.setattr(relay_module, "_ANSWER_WAIT_S", 5.0)
    assert relay.publish_batch() == 10

    for reservation_id in mine:
        assert list(dict.fromkeys(topic.seqs(reservation_id))) == [1, 2]


def test_a_database_that_restarts_in_the_middle_of_a_batch(
    topic: Topic, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection of the relay ends between its look and its mark, as in a restart."""
    mine = hold_and_give_back(Shop.open())
    ended: list[bool] = []

    def end_connections(row: Any, original: Callable[[Any], Any] = relay_module._record) -> Any:
        if not ended:
            own = primary().value("select pg_backend_pid()")
            with closing(Server(settings().database_url)) as other:
                ended.append(other.value("select pg_terminate_backend(:pid)", pid=own))
        return original(row)

    monkeypatch.setattr(relay_module, "_record", end_connections)

    assert relay.publish_batch() == 2
    assert (ended, topic.seqs(mine), unpublished()) == ([True], [1, 2], 0)


def test_without_the_rule_that_a_reservation_waits_its_events_overtake(
    topic: Topic, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: an event is set aside, and the next one of its reservation must not pass it."""
    mine = hold_and_give_back(Shop.open())
    set_aside = (
        "update outbox set attempts = 1, next_try_at = now() + interval '1 minute'"
        " where reservation_id = cast(:id as uuid) and seq = 1"
    )
    primary().rows(set_aside, id=mine)
    assert relay.publish_batch() == 0

    waits = "(coalesce(topic, ''), reservation_id) not in ("
    assert waits in relay_module._UNPUBLISHED
    unguarded = relay_module._UNPUBLISHED.replace(waits, "id not in (").replace(
        "select coalesce(topic, ''), reservation_id from", "select id from"
    )
    monkeypatch.setattr(relay_module, "_UNPUBLISHED", unguarded)
    assert relay.publish_batch() == 1
    assert topic.seqs(mine) == [2]


def test_old_events_are_forgotten_once_published_and_applied_and_no_others(use_settings: Callable[..., None]) -> None:
    mine = hold_and_give_back(Shop.open())
    age = "update outbox set {} = now() - interval '{}' where reservation_id = cast(:id as uuid) and seq = {}"
    primary().rows(age.format("occurred_at", "3 days", 1), id=mine)  # not published
    primary().rows(age.format("published_at", "23 hours", 2), id=mine)
    apply = (
        "insert into inbox (consumer, event_id, attempts, done_at) values ('test', gen_random_uuid(), 1,"
        " {}) returning event_id::text"
    )
    known = primary().value(apply.format("now() - interval '14 days 23 hours'"))
    failed = primary().value(apply.format("null"))
    old = primary().value(apply.format("now() - interval '15 days 1 minute'"))

    prune()

    left = "select count(*) from {} where {} = any (cast(:ids as uuid[]))"
    assert primary().value(left.format("outbox", "reservation_id"), ids=[mine]) == 2
    assert primary().value(left.format("inbox", "event_id"), ids=[known, failed, old]) == 2

    primary().rows(age.format("published_at", "25 hours", 2), id=mine)
    prune()

    assert primary().rows("select seq from outbox where reservation_id = cast(:id as uuid)", id=mine) == [[1]]
