"""Every minute, for a little over a minute: settle pending payments and owed refunds, every two seconds."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from booking import payment
from booking.platform.loops import run_loop


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return run_loop(payment.SETTLING_JOB, 2.0, payment.work)
