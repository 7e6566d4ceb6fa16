"""Where an instance is deployed to, with what values."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from encore_stack.functions import STACK_NAME
from encore_stack.instance import Instance, function_environment, function_secrets

API_ID = "encore"
STAGE = "v1"
REGION = "us-east-1"
LAG_ALARM_S = 10
"""Events come to their consumers within a second here, and a drill is not to wait long for the alarm."""


@dataclass(frozen=True)
class Target:
    """Where to deploy, with what values.

    `parameters` are template.yaml's; `secrets` the JSON keys of the secret; `tools_dir` keeps the built runtime layer;
    `uv` builds it. With `hot_dir` the functions and the project's own layers are run from the folders in which people
    edit them, through links that are kept there.
    """

    endpoint_url: str
    project_dir: Path
    tools_dir: Path
    parameters: Mapping[str, str]
    secrets: Mapping[str, str]
    uv: str = "uv"
    stack_name: str = STACK_NAME
    hot_dir: Path | None = None

    def client(self, service: str) -> Any:
        """A boto3 client of this LocalStack."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 (LocalStack takes any)
            config=Config(
                retries={"total_max_attempts": 2, "mode": "standard"},
                connect_timeout=5,
                read_timeout=60,
                s3={"addressing_style": "path"},
                max_pool_connections=16,
            ),
        )

    @property
    def api_url(self) -> str:
        """Where the deployed API answers."""
        return f"{self.endpoint_url}/_aws/execute-api/{API_ID}/{STAGE}"


def target_of(instance: Instance, *, hot: bool = False) -> Target:
    """Where and with what values the instance's template is deployed; `hot` to run what is saved."""
    redis_urls = instance.redis_urls()
    return Target(
        endpoint_url=instance.url("localstack"),
        project_dir=instance.project_dir,
        tools_dir=instance.tools_dir,
        uv=str(instance.tools_dir / "uv" / "bin" / "uv"),
        hot_dir=instance.dir / "hot" if hot else None,
        secrets=function_secrets(instance),
        parameters={
            "EdgeTrust": function_environment(instance)["ENCORE_EDGE_TRUST"],
            "QueueRedisUrl": redis_urls["queue"],
            "LocksRedisUrl": redis_urls["locks"],
            "CacheRedisUrl": redis_urls["cache"],
            "KafkaBootstrapServers": instance.kafka_bootstrap_servers,
            "ReservationTopic": instance.reservation_topic,
            "DeadLetterTopic": instance.dead_letter_topic,
            "TopicPartitions": str(instance.topic_partitions),
            "LagAlarmSeconds": str(LAG_ALARM_S),
            "NoticesUrl": instance.notices_dir.as_uri(),
            "DanalUrl": instance.url("danal"),
            "PaycoUrl": instance.url("payco"),
        },
    )
