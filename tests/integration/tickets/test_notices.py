"""People are told at each turn: at least once, recorded once, and again when the sender died."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from booking.platform.postgres import primary
from booking.tickets import consumer, notices
from booking.tickets.notices import CannotTell, Notice, notifier, send_notices
from encore_stack.deployment.target import target_of
from encore_stack.instance import Instance
from support.events import Record, msk_event
from support.shop import Shop


@pytest.fixture
def folder(use_settings: Any, tmp_path: Path) -> Path:
    """Where the stand-in writes; what other tests have left unsent is not this one's."""
    primary().rows("update notice set sent_at = now() where sent_at is null")
    use_settings(notices_url=(tmp_path / "people").as_uri())
    return tmp_path / "people"


def tell(*kinds: str, **facts: str) -> str:
    """The events of one reservation have come, in one batch, with these facts beside their own; its id."""
    held = Shop.open(wait=False).hold([3, 4])
    values = []
    for kind in kinds:
        rows = primary().rows(
            "insert into outbox (type, reservation_id, seq, occurred_at, correlation_id, data, published_at)"
            " select cast(:kind as text), id, event_seq + 1, now(), 'test',"
            "        reservation_facts(r) || cast(:facts as jsonb), now()"
            " from reservation r where id = cast(:id as uuid)"
            " returning event_id::text, type, reservation_id::text, seq, 'now', correlation_id, data",
            kind=kind,
            facts=json.dumps(facts),
            id=held["reservation_id"],
        )
        primary().rows(
            "update reservation set event_seq = event_seq + 1 where id = cast(:id as uuid)", id=held["reservation_id"]
        )
        names = ("event_id", "type", "reservation_id", "seq", "occurred_at", "correlation_id", "data")
        values.append(json.dumps(dict(zip(names, rows[0], strict=True))).encode())
    records = [Record(value, offset) for offset, value in enumerate(values)]
    assert consumer.consume(msk_event(records), None) == {"batchItemFailures": []}  # type: ignore[arg-type]
    return str(held["reservation_id"])


def unsent() -> int:
    return int(primary().value("select count(*) from notice where sent_at is null"))


def test_each_turn_is_one_line_that_a_person_can_read(folder: Path) -> None:
    told = ["payment.pending", "payment.declined", "reservation.expired", "payment.refunding", "payment.refunded"]
    reservation_id = tell("reservation.held", "payment.switched", *told)

    assert send_notices() == len(told)

    header, *lines = (folder / "notices.log").read_text().splitlines()
    assert "stand-in" in header
    assert [reservation_id in line and "Seats 3, 4." in line for line in lines] == [True] * len(told)
    assert [notices._WORDS[kind] in line for kind, line in zip(told, lines, strict=True)] == [True] * len(told)
    assert send_notices() == 0 and unsent() == 0


def test_who_has_called_a_payment_off_is_not_told_that_nothing_was_taken(folder: Path) -> None:
    tell("payment.declined", outcome="cancelled")
    tell("payment.declined", outcome="declined")

    send_notices()

    _, called_off, declined = (folder / "notices.log").read_text().splitlines()
    assert "Nothing was taken" not in called_off and "gone back to you" in called_off
    assert "Nothing was taken" in declined


def test_a_sender_that_dies_before_it_has_noted_it_tells_once_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell("payment.declined")
    with monkeypatch.context() as dying:
        dying.setattr(notices, "_MARK", "select 1 / 0 where cast(:tried as text[]) = cast(:sent as text[])")
        with pytest.raises(Exception, match="22012"):
            send_notices()
    assert unsent() == 1

    assert send_notices() == 1

    assert len((folder / "notices.log").read_text().splitlines()) == 3


def test_what_cannot_be_sent_is_tried_again(folder: Path, use_settings: Any) -> None:
    tell("payment.declined")
    folder.write_text("a file is in the way")
    with pytest.raises(CannotTell):
        send_notices()
    folder.unlink()

    assert send_notices() == 1


@pytest.fixture
def subscribed(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """An SNS topic of LocalStack's and what comes of it: its ARN, and a function that reads the messages."""
    for name, value in {
        "AWS_ENDPOINT_URL": instance.url("localstack"), "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    sns, sqs = (target_of(instance).client(service) for service in ("sns", "sqs"))
    name = f"told-{uuid.uuid4().hex}"
    arn, queue = sns.create_topic(Name=name)["TopicArn"], sqs.create_queue(QueueName=name)["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue_arn, Attributes={"RawMessageDelivery": "true"})
    yield arn, lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5).get("Messages", [])
    sns.delete_topic(TopicArn=arn)
    sqs.delete_queue(QueueUrl=queue)


def test_on_aws_a_notice_is_a_message_to_sns(subscribed: tuple[str, Any]) -> None:
    arn, receive = subscribed
    notice = Notice(str(uuid.uuid4()), "2026-11-25T10:00:00.000Z", "a-person", "r-1", "payment.declined", "Declined.")

    assert notifier(arn).send([notice]) == [notice.event_id]

    [message] = receive()
    assert json.loads(message["Body"])["message"] == "Declined."
    assert boto3.DEFAULT_SESSION is not None, "only who sends through SNS imports boto3"


@pytest.mark.parametrize("url", ["", "https://somewhere"])
def test_a_way_that_there_is_not_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="ENCORE_NOTICES_URL"):
        notifier(url)
