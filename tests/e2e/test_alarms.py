"""The alarms on how far the consumers are behind: fed by the poller, shown to an operator, changed by a deployment."""

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from encore_stack.deployment.cloudformation import apply
from encore_stack.deployment.target import target_of
from encore_stack.instance import Instance
from support.waiting import wait_for

CONSUMERS = ("encore-on_reservation_events_count_sales", "encore-on_reservation_events_issue_tickets")


@pytest.fixture(scope="module")
def client(instance: Instance) -> Callable[[str], Any]:
    return target_of(instance).client


def test_the_poller_publishes_what_the_alarms_look_at(client: Callable[[str], Any], status: dict[str, Any]) -> None:
    cloudwatch = client("cloudwatch")
    alarms = {one["AlarmName"]: one for one in cloudwatch.describe_alarms(AlarmNamePrefix="encore-")["MetricAlarms"]}
    for consumer in CONSUMERS:
        alarm = alarms[f"{consumer}-lag"]

        def latest(alarm: dict[str, Any] = alarm) -> list[Any]:
            now = datetime.now(UTC)
            measured: list[Any] = cloudwatch.get_metric_statistics(
                Namespace=alarm["Namespace"],
                MetricName=alarm["MetricName"],
                Dimensions=alarm["Dimensions"],
                StartTime=now - timedelta(seconds=alarm["Period"]),
                EndTime=now + timedelta(seconds=1),
                Period=alarm["Period"],
                Statistics=[alarm["Statistic"]],
            )["Datapoints"]
            return measured

        # The window is a second longer than a period, for a figure put just now: it may hold two points.
        assert all(point["Maximum"] >= 0 for point in wait_for(latest))
    assert {one["name"] for one in status["alarms"]} == {f"{consumer}-lag" for consumer in CONSUMERS}


@pytest.fixture
def stack(client: Callable[[str], Any]) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex}"
    yield name
    client("cloudformation").delete_stack(StackName=name)


def test_a_deployment_can_change_an_alarm(client: Callable[[str], Any], stack: str) -> None:
    def body(threshold: int) -> dict[str, Any]:
        alarm = {
            "AlarmName": stack, "Namespace": "AWS/Kafka", "MetricName": "EstimatedMaxTimeLag", "Statistic": "Maximum",
            "Period": 10, "EvaluationPeriods": 1, "Threshold": threshold, "ComparisonOperator": "GreaterThanThreshold",
        }  # fmt: skip
        return {"Resources": {"Lag": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm}}}

    for threshold in (10, 20):
        apply(client("cloudformation"), stack, body(threshold), {}, lambda _: None)
        [alarm] = client("cloudwatch").describe_alarms(AlarmNames=[stack])["MetricAlarms"]
        assert alarm["Threshold"] == threshold
