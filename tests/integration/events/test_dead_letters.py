"""A record that keeps failing is set aside and its partition goes on; what was a matter of time takes effect later."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from aws_lambda_powertools.utilities.batch.exceptions import BatchProcessingError

from booking.events import unended
from booking.events.consumer import Consumer, Envelope
from booking.events.dead_letters import (
    NoDeadLetter,
    discard,
    find_dead_letter,
    list_dead_letters,
    redrive,
    redrive_transient,
)
from booking.platform.postgres import primary
from booking.sales import consumer as sales
from booking.tickets import TICKET_CONSUMER
from booking.tickets import consumer as tickets
from booking.tickets.relay import Relay
from encore_stack.instance import Instance
from event_source import partition
from support.events import Consume, Feed, Record, envelopes, msk_event, put_raw, read_topic, sell
from support.shop import Shop

POISON, KEY = b"\xff\x00 not an event", b"some\xffkey"


def tickets_of(shop: Shop) -> int:
    return int(
        primary().value(
            "select count(*) from ticket t join reservation r on r.id = t.reservation_id"
            " where r.concert_id = cast(:id as bigint)",
            id=shop.concert_id,
        )
    )


def consume(*records: Any) -> list[int]:
    """The offsets of those that the tickets' consumer wants to come again."""
    try:
        answer = tickets.consume(msk_event(list(records)), None)  # type: ignore[arg-type]
    except BatchProcessingError:
        return [record.offset for record in records]
    return [item["itemIdentifier"]["offset"] for item in answer["batchItemFailures"]]


def refuse_tickets(reservation_id: str) -> Callable[[], None]:
    """A fault that passes: from now on Postgres takes no ticket of this reservation, until the answer is called."""
    name = f"refused_{reservation_id.replace('-', '')}"
    primary().rows(f"alter table ticket add constraint {name} check (reservation_id <> '{reservation_id}') not valid")
    return lambda: primary().rows(f"alter table ticket drop constraint {name}") and None


def test_one_poison_record_among_200_is_set_aside_and_its_partition_goes_on(
    instance: Instance, topic: str, relay: Relay, use_settings: Callable[..., object]
) -> None:
    use_settings(event_attempts_max=3)
    shop, other = Shop.open(seats=120, wait=False), Shop.open(seats=80, wait=False)
    sell(shop, 120)
    put_raw(POISON, KEY)
    sell(other, 80)
    relay.publish_batch()
    [poison] = [one for one in read_topic(instance.kafka_bootstrap_servers, topic, None, 201) if one.key == KEY]

    Feed(instance.kafka_bootstrap_servers, topic, tickets.consume).run_to_the_end()

    assert (tickets_of(shop), tickets_of(other)) == (120, 80)
    [letter] = list_dead_letters("waiting", 10)
    where = {"topic": topic, "partition": poison.partition, "offset": poison.offset}
    about = {"consumer": "tickets", "attempts": 3, "correlation_id": "from-afar", "type": None, "transient": False}
    assert {name: letter[name] for name in where | about} == where | about
    assert "DecodeError" in letter["error"]
    found = find_dead_letter(letter["id"])
    assert [base64.b64decode(found[name]) for name in ("key", "value")] == [KEY, POISON]
    relay.publish_batch()
    [sent] = read_topic(instance.kafka_bootstrap_servers, f"{topic}.dead-letter", None, 1)
    assert (sent.key, sent.value) == (KEY, POISON)
    headers = {name: value.decode() for name, value in sent.headers}
    assert headers | {
        "origin_topic": topic, "origin_partition": str(poison.partition), "origin_offset": str(poison.offset),
        "attempts": "3", "consumer": "tickets", "correlation_id": "from-afar", "error": letter["error"],
        "dead_letter_id": str(letter["id"]),
    } == headers  # fmt: skip


def test_without_the_bound_the_partition_stalls(
    instance: Instance, topic: str, relay: Relay, use_settings: Callable[..., object]
) -> None:
    use_settings(event_attempts_max=1_000_000)
    put_raw(POISON, KEY)
    relay.publish_batch()
    put_raw(POISON, KEY)
    relay.publish_batch()
    feed = Feed(instance.kafka_bootstrap_servers, topic, tickets.consume)

    shown = feed.run(lambda _: feed.calls > 3)

    assert (shown["records"], shown["lag"]) == (0, 2)
    assert list_dead_letters(None, 10) == []


def test_what_was_a_matter_of_time_is_sent_back_by_the_job_and_takes_effect_once(
    instance: Instance, topic: str, relay: Relay, use_settings: Callable[..., object]
) -> None:
    use_settings(event_attempts_max=2, dead_letter_redrive_backoff_s=3600)
    shop = Shop.open(wait=False)
    [reservation_id] = sell(shop, 1)
    heal = refuse_tickets(reservation_id)
    relay.publish_batch()

    def newest(count: int) -> Any:
        return read_topic(instance.kafka_bootstrap_servers, topic, reservation_id, count)[-1]

    first = newest(1)
    assert [consume(first), consume(first)] == [[first.offset], []], "the second attempt sets it aside"
    assert redrive_transient() == 0, "it is not due yet"
    use_settings(dead_letter_redrive_backoff_s=0.001)
    assert redrive_transient() == 1
    assert redrive_transient() == 0, "it is under way"
    relay.publish_batch()
    assert consume(newest(2)) == [], "it fails again, and is set aside again at once"
    [letter] = list_dead_letters("waiting", 10)
    assert (letter["attempts"], letter["redrives"], letter["transient"]) == (3, 1, True)
    assert tickets_of(shop) == 0
    heal()
    with use_settings(dead_letter_redrives_max=1):  # type: ignore[attr-defined]
        assert redrive_transient() == 0, "no more often than that"
    assert redrive_transient() == 1
    relay.publish_batch()
    again = newest(3)
    assert (again.key, again.value, again.partition) == (first.key, first.value, first.partition)

    assert consume(again, first) == []

    assert tickets_of(shop) == 1
    [letter] = list_dead_letters(None, 10)
    assert (letter["state"], letter["redrives"]) == ("redriven", 2)
    assert letter["applied_at"]
    assert sales.consume(msk_event([again]), None) == {"batchItemFailures": []}  # type: ignore[arg-type]
    assert primary().value("select count(*) from concert_sales where concert_id = :id", id=shop.concert_id) == 0, (
        "it is sent back for the consumer that failed it"
    )


def test_what_no_wait_mends_waits_for_people_who_send_back_no_more_than_they_say(topic: str, relay: Relay) -> None:
    for offset in range(3):
        for _ in range(5):
            consume(Record(POISON, offset))
    letters = [letter["id"] for letter in list_dead_letters("waiting", 10)]
    assert len(letters) == 3
    assert redrive_transient() == 0

    assert redrive(None, 2) == letters[:2]
    assert redrive(letters, 2) == letters[2:], "the others are under way"
    assert [letter["state"] for letter in list_dead_letters(None, 10)] == ["redriven"] * 3


def test_a_record_that_is_no_event_is_known_again_when_it_was_sent_back(
    instance: Instance, topic: str, relay: Relay, use_settings: Callable[..., object]
) -> None:
    use_settings(event_attempts_max=1)
    put_raw(POISON, KEY)
    relay.publish_batch()
    [first] = read_topic(instance.kafka_bootstrap_servers, topic, None, 1)
    consume(first)
    [letter] = list_dead_letters("waiting", 10)
    redrive([letter["id"]], 1)
    relay.publish_batch()
    again = read_topic(instance.kafka_bootstrap_servers, topic, None, 2)[-1]

    consume(again)

    [letter] = list_dead_letters("waiting", 10)
    assert (letter["attempts"], letter["offset"]) == (2, first.offset)


@pytest.mark.parametrize("value", [POISON, None, b"", b"{}", b'{"event_id": "\\ud800"}'])
def test_what_was_discarded_counts_as_done_from_then_on(
    topic: str, use_settings: Callable[..., object], value: bytes
) -> None:
    use_settings(event_attempts_max=1)
    record = Record(value, topic=topic)
    assert consume(record) == []
    [letter] = list_dead_letters("waiting", 10)

    discard(letter["id"], "nobody knows it", "somebody@here")

    assert consume(record) == []
    [letter] = list_dead_letters(None, 10)
    assert (letter["state"], letter["attempts"]) == ("discarded", 1)
    assert (letter["discard_reason"], letter["discarded_by"]) == ("nobody knows it", "somebody@here")
    assert redrive([letter["id"]], 1) == []
    with pytest.raises(NoDeadLetter):
        discard(letter["id"], "again", "somebody@here")


def test_a_database_that_is_away_is_no_fault_of_the_record(topic: str, use_settings: Callable[..., Any]) -> None:
    shop = Shop.open(wait=False)
    sell(shop, 2)
    [[value]] = [envelopes({"reservation_id": one}) for one in sell(Shop.open(wait=False), 1)]
    with use_settings(event_attempts_max=1, database_url="postgresql://encore:x@127.0.0.1:1/encore"):
        assert consume(Record(value, 0), Record(POISON, 1)) == [0, 1]
    assert list_dead_letters(None, 10) == []

    assert consume(Record(value, 0)) == []


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "RETRY_S_MAX", 0.05)


class Killed(BaseException):
    """The function is gone: nothing of it runs any more."""


def deadly(reservation_id: str) -> Consume:
    """The tickets' consumer, which an event of this reservation kills, as Lambda's caller sees it."""

    def add(event: Envelope) -> dict[str, Any]:
        if str(event.reservation_id) == reservation_id:
            raise Killed
        return tickets._ticket_code(event)

    consumer = Consumer(TICKET_CONSUMER, tickets._ISSUE, tickets._tell, add)

    def invoke(event: dict[str, Any], context: Any) -> Any:
        try:
            return consumer.consume(event, context)
        except Killed as died:
            raise RuntimeError("RequestId: … Error: Runtime exited with error: signal: killed") from died

    return invoke


def test_a_record_that_kills_the_function_is_set_aside_and_its_partition_goes_on(
    instance: Instance, topic: str, relay: Relay, use_settings: Callable[..., object], quick_retries: None
) -> None:
    use_settings(event_attempts_max=3)
    shop = Shop.open(seats=30, wait=False)
    victim = sell(shop, 30)[15]
    relay.publish_batch()

    Feed(instance.kafka_bootstrap_servers, topic, deadly(victim)).run_to_the_end()

    assert tickets_of(shop) == 29
    [letter] = list_dead_letters("waiting", 10)
    assert (letter["reservation_id"], letter["attempts"], letter["transient"]) == (victim, 3, True)
    assert "FunctionKilled" in letter["error"]
    assert redrive([letter["id"]], 1)
    relay.publish_batch()
    [*_, again] = read_topic(instance.kafka_bootstrap_servers, topic, victim, 2)
    assert consume(again) == []
    assert tickets_of(shop) == 30, "with what killed the function mended, it takes effect"


def test_without_the_note_of_its_beginning_such_a_record_stalls_its_partition(
    instance: Instance, topic: str, relay: Relay, monkeypatch: pytest.MonkeyPatch, quick_retries: None
) -> None:
    monkeypatch.setattr(unended, "_ENDS_MISSING_MAX", 1_000_000)
    [victim] = sell(Shop.open(wait=False), 1)
    relay.publish_batch()
    feed = Feed(instance.kafka_bootstrap_servers, topic, deadly(victim))

    shown = feed.run(lambda _: feed.calls > 12)

    assert (shown["records"], shown["lag"]) == (0, 1)
    assert list_dead_letters(None, 10) == []


def test_beside_a_record_that_kills_the_function_what_was_sent_back_is_tried(
    instance: Instance, topic: str, relay: Relay, use_settings: Callable[..., object], quick_retries: None
) -> None:
    use_settings(event_attempts_max=3)
    shop = Shop.open(seats=2, wait=False)
    victim, innocent = sell(shop, 2)
    events = {id_: envelopes({"reservation_id": id_})[0] for id_ in (victim, innocent)}
    put_back = refuse_tickets(innocent)
    for _ in range(3):
        consume(Record(events[innocent], 0))
    put_back()
    [letter] = list_dead_letters("waiting", 10)
    assert redrive([letter["id"]], 1)
    invoke = deadly(victim)

    for _ in range(10):
        try:
            invoke(msk_event([Record(events[victim], 7), Record(events[innocent], 8)]), None)
        except RuntimeError:
            continue
        break

    assert tickets_of(shop) == 1, "the innocent one"
