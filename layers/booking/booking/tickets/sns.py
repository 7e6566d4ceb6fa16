"""The notifier on AWS: one message a notice to an SNS topic, to which the shop that knows its people subscribes."""

from collections.abc import Iterator, Sequence
from itertools import batched
from typing import TYPE_CHECKING, Any

import msgspec

from booking.platform.telemetry import logger

if TYPE_CHECKING:
    from booking.tickets.notices import Notice

_MESSAGES_PER_CALL_MAX = 10  # SNS's own limit


class SnsNotifier:
    """Publishes to ``topic_arn``; ``kind`` and ``person`` are attributes, to be filtered by."""

    def __init__(self, topic_arn: str) -> None:
        import boto3  # 160 ms: only the function that sends notices pays them

        self._topic_arn = topic_arn
        self._sns = boto3.client("sns", region_name=topic_arn.split(":")[3])

    def send(self, notices: Sequence["Notice"]) -> list[str]:
        return [
            event_id
            for some in batched(notices, _MESSAGES_PER_CALL_MAX, strict=False)
            for event_id in self._publish(some)
        ]

    def _publish(self, notices: Sequence["Notice"]) -> Iterator[str]:
        try:
            answer = self._sns.publish_batch(
                TopicArn=self._topic_arn,
                PublishBatchRequestEntries=[self._entry(notice) for notice in notices],
            )
        except Exception as fault:  # botocore's faults have no common root
            logger().warning("SNS took nothing", number=len(notices), reason=repr(fault))
            return
        for refused in answer.get("Failed", []):
            logger().warning("SNS refused a notice", event_id=refused["Id"], reason=refused.get("Message"))
        yield from (taken["Id"] for taken in answer.get("Successful", []))

    @staticmethod
    def _entry(notice: "Notice") -> dict[str, Any]:
        attributes = {"kind": notice.kind, "person": notice.person}
        return {
            "Id": notice.event_id,
            "Message": msgspec.json.encode(notice).decode(),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
            },
        }
