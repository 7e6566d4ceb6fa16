"""On reservation events (Kafka): issue tickets, note what people are to be told."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from booking.platform.telemetry import logger
from booking.tickets.consumer import consume


@logger().inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> Any:
    return consume(event, context)
