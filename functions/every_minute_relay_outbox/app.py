"""Every minute, for a little over a minute: publish the outbox to Kafka, ten times a second."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from booking.platform.loops import run_loop
from booking.tickets.relay import Relay


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    with Relay() as relay:
        return run_loop("relay_outbox", 0.1, relay.tick)
