"""Every hour: hold all payments against the payment firms' books, heal what is safe, report the rest."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from booking.operations.reconciliation import reconcile_payments


def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return reconcile_payments()
