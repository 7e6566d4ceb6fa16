"""Every minute, for a little over a minute: let waiting people in and copy admissions to Postgres, every second."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from booking.platform.loops import run_loop
from booking.queue.admissions import keep_lines_moving


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return run_loop("admit_waiting", 1.0, keep_lines_moving)
