"""On reservation events (Kafka): issue tickets, tell people, keep the sales counters."""

from booking.platform.telemetry import logger
from booking.tickets.consumer import consume


@logger().inject_lambda_context
def handler(event, context):
    return consume(event, context)
