"""I6's negative controls: lose, hold back or repeat an event behind the code's back, and I6 alone is reported."""

import itertools
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest

from booking.operations.audit import Auditor, Verdict, missing_or_overtaken
from booking.operations.topic import PublishedEvent, read_topic
from booking.platform.postgres import primary
from booking.platform.settings import settings
from booking.sales import consumer as sales
from booking.tickets import CONSUMERS
from booking.tickets import consumer as tickets
from booking.tickets.relay import Relay
from encore_stack.instance import Instance
from support.events import msk_event
from support.shop import Shop, confirm_without_gateway
from support.topics import Topic

_LONG_AGO = (
    "update outbox set occurred_at = occurred_at - interval '2 minutes',"
    " published_at = published_at - interval '2 minutes'"
)
_CONFIRMED = "type = 'reservation.confirmed'"


_EFFECTS = ("ticket", "notice", "schedule_sales", "concert_sales")
_SAVED = ("seat", "seat_ledger", "reservation", "payment", "admission", "outbox", "inbox", *_EFFECTS)


@pytest.fixture(scope="module")
def own_url(make_database: Callable[[str], str]) -> str:
    return make_database("encore_events")


@pytest.fixture(scope="module")
def own_topic(instance: Instance) -> Topic:
    return Topic(instance.kafka_bootstrap_servers)


@pytest.fixture
def topic(own_url: str, own_topic: Topic, monkeypatch: pytest.MonkeyPatch) -> Iterator[Topic]:
    """Of these tests' own, as is the database. A sale is in both whose events have all acted (``sell``); what a test
    does is undone after it."""
    monkeypatch.setenv("ENCORE_DATABASE_URL", own_url)
    monkeypatch.setenv("ENCORE_RESERVATION_TOPIC", own_topic.name)
    settings.cache_clear()
    if not primary().rows("select from outbox"):
        sell(own_topic)
        for table in _SAVED:
            primary().rows(f"create table saved_{table} as table {table}")
    yield own_topic
    primary().rows(f"truncate {', '.join(_SAVED)}")
    for table in _SAVED:
        primary().rows(f"insert into {table} overriding system value table saved_{table}")


@pytest.fixture
def look(topic: Topic) -> Iterator[Callable[[], Verdict]]:
    """The audit, which reads the topic, too; no book: nobody was charged."""
    read = partial(read_topic, settings().kafka_bootstrap_servers, settings().reservation_topic)
    with closing(Auditor(settings().database_url, [], read_topic=read, without=["I3"])) as auditor:
        yield auditor.audit


def findings(verdict: Verdict) -> list[str]:
    assert {name for name, found in verdict.violations.items() if found} <= {"I6"}
    return [fault for _, fault in verdict.violations["I6"]]


def publish() -> None:
    with Relay() as relay:
        while relay.publish_batch():
            pass


def consume(topic: Topic) -> None:
    event = msk_event(topic.records())
    for consume_events in (tickets.consume, sales.consume):
        assert consume_events(event, None) == {"batchItemFailures": []}  # type: ignore[arg-type]


def sell(topic: Topic) -> None:
    """Two buyers, one of whom gives it back; all events delivered, a while ago."""
    shop = Shop.open(wait=False)
    confirm_without_gateway(shop, [1, 2], "first")
    given_back = confirm_without_gateway(shop, [3], "second")
    publish()
    consume(topic)
    refund = "select refund_reservation(:person, cast(:id as uuid), 'test')"
    primary().rows(refund, person=shop.shopper("second").person, id=given_back)
    publish()
    consume(topic)
    primary().rows(_LONG_AGO)


def test_what_has_acted_is_sound_and_a_replay_of_the_topic_changes_nothing(
    topic: Topic, look: Callable[[], Verdict]
) -> None:
    def effects() -> list[object]:
        return [primary().rows(f"select t::text from {table} t order by 1") for table in _EFFECTS]

    verdict, before = look(), effects()
    assert findings(verdict) == []
    assert (verdict.in_flight["events unpublished"], verdict.in_flight["events to consume"]) == (0, 0)

    consume(topic)

    assert effects() == before
    assert findings(look()) == []


@pytest.mark.parametrize(
    ("broken_by", "told"),
    [
        (f"delete from outbox where {_CONFIRMED}", "the outbox has"),
        (f"update outbox set published_at = null where {_CONFIRMED}", "was never published"),
        (
            "delete from inbox i using outbox o where o.event_id = i.event_id and o.type = 'reservation.held'",
            "was published and has not acted",
        ),
        ("update inbox set done_at = null, attempts = 3", "was published and has not acted"),
        ("update schedule_sales set seats_sold = seats_sold * 2", "counts 4 seats sold; 2 are"),
        ("update schedule_sales set seats_sold = 0", "counts 0 seats sold; 2 are"),
        ("delete from ticket", "is confirmed and has no ticket"),
        ("update ticket set revoked_at = null", "is refunded and has a good ticket"),
        ("delete from notice where kind = 'reservation.refunded'", "the person was not told"),
        ("update outbox set event_id = gen_random_uuid(), data = '{}'", "the topic does not have it"),
    ],
)
def test_a_broken_event_is_reported(topic: Topic, look: Callable[[], Verdict], broken_by: str, told: str) -> None:
    primary().rows(broken_by)

    assert any(told in fault for fault in findings(look()))


def test_an_event_that_was_never_written_is_missed(topic: Topic, look: Callable[[], Verdict]) -> None:
    """Whoever forgets to emit it counts none either."""
    primary().rows("update reservation set event_seq = 1 where status = 'confirmed'")
    primary().rows(f"delete from outbox where {_CONFIRMED}")

    assert "is confirmed, and no event says so" in findings(look())


def test_events_on_their_way_are_in_flight(topic: Topic, look: Callable[[], Verdict]) -> None:
    confirm_without_gateway(Shop.open(wait=False), [1])
    on_their_way = look()
    assert findings(on_their_way) == []
    assert on_their_way.in_flight["events unpublished"] == 2

    publish()
    on_their_way = look()
    assert findings(on_their_way) == []
    assert on_their_way.in_flight["events to consume"] == 2 * len(CONSUMERS)


def test_an_event_that_is_marked_and_never_reached_the_broker(topic: Topic, look: Callable[[], Verdict]) -> None:
    Shop.open(wait=False).hold([1])
    primary().rows("update outbox set published_at = clock_timestamp() where published_at is null")

    assert [fault.partition(" is ")[2] for fault in findings(look())] == [
        "marked as published, and the topic does not have it"
    ]


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_the_first_time_that_an_event_comes_counts_for_its_order(order: tuple[int, ...]) -> None:
    reservation_id = str(uuid.uuid4())
    marked = {f"event {seq}": (reservation_id, seq) for seq in (1, 2, 3)}
    came = [PublishedEvent(f"event {seq}", reservation_id, seq) for seq in order]

    found = list(missing_or_overtaken(marked, [[*came, *reversed(came)]]))

    assert (found == []) == (order == (1, 2, 3))
