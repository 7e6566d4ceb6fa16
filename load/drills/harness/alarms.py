"""The alarms on consumers' lag under a drill: what an operator sees in scripts/status."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError

from encore_stack.alarms import read_alarms
from encore_stack.deployment.target import target_of
from encore_stack.functions import STACK_NAME
from encore_stack.instance import Instance


def alarm_of(function: str) -> str:
    """The name of the alarm on a consumer's lag."""
    return f"{STACK_NAME}-{function}-lag"


def is_in(instance: Instance, function: str, state: str) -> bool:
    """Whether the alarm on a consumer's lag is in this state now; False while nobody can say."""
    with suppress(BotoCoreError, ClientError):
        return any(one.state == state for one in read_alarms(instance) if one.name == alarm_of(function))
    return False


def has_been_in(instance: Instance, function: str, state: str, since_s: float) -> int:
    """How often the alarm has come into this state in the last ``since_s`` seconds."""
    since = datetime.now(UTC) - timedelta(seconds=since_s)
    cloudwatch = target_of(instance).client("cloudwatch")
    history = cloudwatch.describe_alarm_history(AlarmName=alarm_of(function), HistoryItemType="StateUpdate")
    changes = history["AlarmHistoryItems"]  # of any time: LocalStack fails where it is told a time
    return sum(one["Timestamp"] >= since and f"to {state}" in one["HistorySummary"] for one in changes)
