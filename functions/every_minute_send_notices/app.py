"""Every minute, for a little over a minute: tell people what became of their reservations, twice a second."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from booking.platform.loops import run_loop
from booking.tickets.notices import send_notices


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return run_loop("send_notices", 0.5, send_notices)
