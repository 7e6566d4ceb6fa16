"""Every minute, for a little over a minute: close lapsed holds and put their seats back, every five seconds."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from booking import seats
from booking.platform.loops import run_loop


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return run_loop("expire_holds", 5.0, seats.sweep)
