"""Every minute, for a little over a minute: send transient dead letters back to their consumers, every five seconds."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from booking.events.dead_letters import redrive_transient
from booking.platform.loops import run_loop


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return run_loop("redrive_dead_letters", 5.0, redrive_transient)
