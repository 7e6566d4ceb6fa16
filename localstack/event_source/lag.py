"""Stands in for MSK's consumer-lag metrics: how far each consumer is behind, for CloudWatch's alarms.

MSK estimates how long a group takes to catch up, once a minute. Here ``EstimatedMaxTimeLag`` is how long the oldest
record that is not done has been in the topic, in seconds, every few seconds. As with MSK there is nothing to be said
while a group has no partitions: it is being balanced anew, or Kafka is away.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import httpx

from event_source.settings import Settings
from event_source.signing import authorization

NAMESPACE, METRIC = "AWS/Kafka", "EstimatedMaxTimeLag"
EVERY_S = 4.0
"""Twice in each period of the alarms (10 s)."""
_TIMEOUT_S = 3.0

logger = logging.getLogger("event_source")


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a consumer group is behind in a topic."""

    consumer_group: str
    topic: str
    seconds: float


async def publish_lags(settings: Settings, read: Callable[[], Sequence[Lag]]) -> NoReturn:
    """Put the lags every few seconds, for ever. What cannot be put is lost, and polling knows nothing of it."""
    headers = {"Authorization": authorization("monitoring", settings.region)}
    async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT_S, trust_env=False) as client:
        while True:
            try:
                if lags := read():
                    answer = await client.post(settings.localstack_url, data=form_of(settings.stack_name, lags))
                    answer.raise_for_status()
            except Exception as e:  # whatever it is: records matter more than figures about them
                logger.warning("lag not published", extra={"error": repr(e)})
            await asyncio.sleep(EVERY_S)


def form_of(cluster_name: str, lags: Sequence[Lag]) -> dict[str, str]:
    """PutMetricData in CloudWatch's query protocol, with the dimensions that MSK gives the metric."""
    form = {"Action": "PutMetricData", "Version": "2010-08-01", "Namespace": NAMESPACE}
    for number, lag in enumerate(lags, start=1):
        datum = f"MetricData.member.{number}"
        form |= {f"{datum}.MetricName": METRIC, f"{datum}.Value": f"{lag.seconds:.3f}", f"{datum}.Unit": "Seconds"}
        dimensions = {"Cluster Name": cluster_name, "Consumer Group": lag.consumer_group, "Topic": lag.topic}
        for place, (name, value) in enumerate(dimensions.items(), start=1):
            form |= {f"{datum}.Dimensions.member.{place}.Name": name, f"{datum}.Dimensions.member.{place}.Value": value}
    return form
