"""On reservation events (Kafka): keep the sales read model, which the catalogue reads."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from booking.platform.telemetry import logger
from booking.sales.consumer import consume


@logger().inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> Any:
    return consume(event, context)
