"""CloudFormation can change an alarm: LocalStack can only make one, and calls an update done that it has not made."""

from typing import Any


def apply() -> None:
    from localstack.services.cloudwatch.resource_providers.aws_cloudwatch_alarm import CloudWatchAlarmProvider

    def update(self: Any, request: Any) -> Any:
        """PutMetricAlarm makes an alarm, or replaces the one of that name."""
        request.desired_state.setdefault("AlarmName", request.previous_state["AlarmName"])
        return self.create(request)

    CloudWatchAlarmProvider.update = update
