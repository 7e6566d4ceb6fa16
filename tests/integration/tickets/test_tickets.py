"""From the outbox to the ticket, over the real broker: at least once on the wire, exactly once in effect."""

import json
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from booking import payment
from booking.catalog.concerts import find_concert
from booking.catalog.schedules import list_schedules
from booking.platform.postgres import primary
from booking.platform.telemetry import logger
from booking.queue import TurnOver, join_line, person_of, position, read_pass
from booking.sales import consumer as sales
from booking.seats import hold_seats
from booking.seats.holds import Attempt
from booking.tickets import consumer
from booking.tickets.relay import Relay
from encore_stack.instance import Instance
from support.events import Record, envelopes, msk_event, read_topic
from support.gateways import SimulatedGateway
from support.replica import wait_for_replica
from support.shop import Shop, new_key


@pytest.fixture
def info_lines() -> Iterator[list[dict[str, Any]]]:
    """The fields of each line that the layer logs meanwhile, at level INFO."""
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.__dict__ | {"message": record.getMessage()})

    keep, level = Keep(), logger().log_level
    logger().addHandler(keep)
    logger().setLevel(logging.INFO)
    yield lines
    logger().setLevel(level)
    logger().removeHandler(keep)


def drain_others(relay: Relay) -> None:
    """Publish what other tests have left, so that counts below are this test's own."""
    relay.publish_batch()


def consume(*values: bytes) -> Any:
    records = [Record(value, offset) for offset, value in enumerate(values)]
    answer = consumer.consume(msk_event(records), None)  # type: ignore[arg-type]
    assert sales.consume(msk_event(records), None) == answer  # type: ignore[arg-type]
    wait_for_replica()
    return answer


def tickets(reservation: dict[str, Any]) -> int:
    return int(
        primary().value(
            "select count(*) from ticket where reservation_id = cast(:id as uuid) and revoked_at is null",
            id=reservation["reservation_id"],
        )
    )


def test_events_reach_kafka_in_order_and_become_one_ticket(
    instance: Instance, topic: str, relay: Relay, danal: SimulatedGateway
) -> None:
    drain_others(relay)
    shop = Shop.open()
    held = shop.hold([1])
    shop.pay(held)

    assert relay.publish_batch() == 2
    assert relay.publish_batch() == 0

    mine = read_topic(instance.kafka_bootstrap_servers, topic, held["reservation_id"], 2)
    assert [json.loads(record.value)["type"] for record in mine] == ["reservation.held", "reservation.confirmed"]
    assert [json.loads(record.value)["seq"] for record in mine] == [1, 2]
    assert dict(mine[0].headers)["correlation_id"] == json.loads(mine[0].value)["correlation_id"].encode()
    assert consumer.consume(msk_event(mine), None) == {"batchItemFailures": []}  # type: ignore[arg-type]
    shown = shop.show(held)
    assert len(shown["ticket"]["code"]) == 12


def test_a_broker_that_is_away_loses_nothing(
    instance: Instance, relay: Relay, use_settings: Callable[..., None], topic: str
) -> None:
    drain_others(relay)
    shop = Shop.open()
    held = shop.hold([1])
    use_settings(kafka_bootstrap_servers="127.0.0.1:1")
    with Relay() as unlucky, pytest.raises(KafkaError):
        unlucky.publish_batch()
    assert len(envelopes(held)) == 1

    use_settings(kafka_bootstrap_servers=instance.kafka_bootstrap_servers)

    assert relay.publish_batch() == 1


def test_each_published_event_is_one_line_in_the_log(
    topic: str, relay: Relay, danal: SimulatedGateway, info_lines: list[dict[str, Any]]
) -> None:
    drain_others(relay)
    info_lines.clear()
    shop = Shop.open()
    held = shop.hold([1])
    shop.pay(held)

    relay.publish_batch()

    fields = ("type", "event_id", "reservation_id", "correlation_id")
    assert [line["message"] for line in info_lines] == ["event published"] * 2
    assert [[line[field] for field in fields] for line in info_lines] == [
        [json.loads(envelope)[field] for field in fields] for envelope in envelopes(held)
    ]


def test_below_info_no_line_is_put_together(topic: str, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    drain_others(relay)
    Shop.open().hold([1])
    monkeypatch.setattr("booking.tickets.relay.logger", lambda: pytest.fail("asked for a line"))

    assert relay.publish_batch() == 1


def test_headers_without_value_stop_nothing(danal: SimulatedGateway) -> None:
    shop = Shop.open()
    held = shop.hold([1])
    shop.pay(held)
    event = msk_event([Record(value, offset) for offset, value in enumerate(envelopes(held))])
    for record in event["records"]["reservation-events-0"]:
        record["headers"] = [{"somebodys": None}, {"redriven_for": []}, {"correlation_id": None}]

    assert consumer.consume(event, None) == {"batchItemFailures": []}  # type: ignore[arg-type]

    assert tickets(held) == 1


def test_an_event_that_comes_again_changes_nothing(danal: SimulatedGateway) -> None:
    shop = Shop.open()
    held = shop.hold([1, 2])
    shop.pay(held)
    everything = envelopes(held)

    for _ in range(3):
        assert consume(*everything) == {"batchItemFailures": []}

    assert tickets(held) == 1
    [schedule] = json.loads(list_schedules(shop.concert_id))["schedules"]
    assert schedule["seats_left"] == 8


def test_order_does_not_matter_a_refund_before_its_confirmation_leaves_no_ticket(danal: SimulatedGateway) -> None:
    shop = Shop.open()
    held = shop.hold([1])
    shop.pay(held)
    payment.cancel_reservation(held["reservation_id"], shop.shopper().person)

    consume(*reversed(envelopes(held)))

    assert tickets(held) == 0
    assert "ticket" not in shop.show(held)
    [schedule] = json.loads(list_schedules(shop.concert_id))["schedules"]
    assert schedule["seats_left"] == 10


def test_a_refund_revokes_the_ticket(danal: SimulatedGateway) -> None:
    shop = Shop.open()
    held = shop.hold([1])
    shop.pay(held)
    consume(*envelopes(held))
    assert tickets(held) == 1

    payment.cancel_reservation(held["reservation_id"], shop.shopper().person)
    consume(*envelopes(held))

    assert tickets(held) == 0


def test_the_last_confirmed_seat_tells_the_catalogue(danal: SimulatedGateway) -> None:
    shop = Shop.open(seats=1)
    held = shop.hold([1])
    shop.pay(held)
    assert find_concert(shop.concert_id)["status"] == "on_sale"

    consume(*envelopes(held))

    assert find_concert(shop.concert_id)["status"] == "sold_out"


def test_a_buyers_turn_is_over_even_if_step_7_died_before_it_said_so(
    danal: SimulatedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop.open()
    person = person_of("somebody")
    inside = join_line(shop.concert_id, person)
    shopper = read_pass(inside.shop_pass)
    held = hold_seats(Attempt(shopper, new_key(), "hold"), shop.concert_id, [1])
    with monkeypatch.context() as dying:
        dying.setattr("booking.payment.settlement.end_turn", lambda *_: None)
        payment.pay(Attempt(shopper, new_key(), "pay"), held["reservation_id"], "card")
    assert position(inside.token).state == "admitted"

    consume(*envelopes(held))

    with pytest.raises(TurnOver):
        position(inside.token)


@pytest.mark.parametrize("lost", ["the reservation", "its last event", "its last event, and it had another"])
def test_an_event_of_a_lost_commit_is_void(danal: SimulatedGateway, lost: str) -> None:
    """A failover without synchronous replication: the event was published, its commit is not there."""
    shop = Shop.open()
    held = shop.hold([1])
    shop.pay(held)
    confirmed = json.loads(envelopes(held)[1])
    match lost:
        case "the reservation":
            event = confirmed | {"reservation_id": str(uuid.uuid4())}
        case "its last event":
            event = confirmed | {"seq": 3}
        case _:
            event = confirmed
    event |= {"event_id": str(uuid.uuid4())}

    assert consume(json.dumps(event).encode()) == {"batchItemFailures": []}

    assert tickets(held) == 0
    [schedule] = json.loads(list_schedules(shop.concert_id))["schedules"]
    assert schedule["seats_left"] == 10
    consume(*envelopes(held))
    assert tickets(held) == 1


def test_an_event_whose_outbox_row_was_pruned_acts_all_the_same(danal: SimulatedGateway) -> None:
    shop = Shop.open()
    held = shop.hold([1])
    shop.pay(held)
    events = envelopes(held)
    primary().rows("delete from outbox where reservation_id = cast(:id as uuid)", id=held["reservation_id"])

    assert consume(*events) == {"batchItemFailures": []}
    assert tickets(held) == 1


def test_a_held_seat_is_shown_even_if_step_6_died_before_it_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop.open()
    assert shop.map_state(1) == "available"
    with monkeypatch.context() as dying:
        dying.setattr("booking.seats.locks.run_together", lambda _: None)
        held = shop.hold([1])
    assert shop.map_state(1) == "available"

    with monkeypatch.context() as dying:
        dying.setattr(consumer, "seats_changed", lambda _, **__: None)  # so may the consumer
        consume(*envelopes(held))
    assert shop.map_state(1) == "available"

    consume(*envelopes(held))
    assert shop.map_state(1) == "held"


def test_one_bad_record_fails_alone_and_is_counted(danal: SimulatedGateway) -> None:
    shop = Shop.open()
    held = shop.hold([1])
    shop.pay(held)
    unknown = json.loads(envelopes(held)[0]) | {"event_id": str(uuid.uuid4()), "data": {"words": "\0"}}

    answer = consume(b"not json", json.dumps(unknown).encode(), *envelopes(held))

    failed = [item["itemIdentifier"]["offset"] for item in answer["batchItemFailures"]]
    assert failed == [0, 1]
    assert tickets(held) == 1
    [[attempts, error]] = primary().rows(
        "select attempts, last_error from inbox where event_id = cast(:id as uuid) and consumer = 'tickets'",
        id=unknown["event_id"],
    )
    assert attempts == 1
    assert "22P05" in error
