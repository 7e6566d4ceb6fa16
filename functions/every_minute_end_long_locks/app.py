"""Every minute, for a little over a minute: end transactions that sit on seats for too long, every second."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from booking.operations.long_locks import end_long_locks
from booking.platform.loops import run_loop


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return run_loop("end_long_locks", 1.0, end_long_locks)
