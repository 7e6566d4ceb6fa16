"""The alarms of the deployed stack, as CloudWatch has them."""

from dataclasses import dataclass

from encore_stack.deployment.target import target_of
from encore_stack.instance import Instance

OK, ALARM, NO_DATA = "OK", "ALARM", "INSUFFICIENT_DATA"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm. ``since`` is when it came into its state (OK, ALARM, INSUFFICIENT_DATA), RFC 3339 UTC."""

    name: str
    state: str
    since: str


def read_alarms(instance: Instance) -> list[Alarm]:
    """Every alarm of the stack, by name. Raises botocore's ClientError and BotoCoreError where LocalStack is away."""
    target = target_of(instance)
    told = target.client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{target.stack_name}-")["MetricAlarms"]
    alarms = [Alarm(one["AlarmName"], one["StateValue"], f"{one['StateUpdatedTimestamp']:%Y-%m-%dT%H:%M:%SZ}")
              for one in told]  # fmt: skip
    return sorted(alarms, key=lambda alarm: alarm.name)
