"""Every minute, for a little over a minute: settle pending payments and owed refunds, every two seconds."""

from booking import payment
from booking.platform.loops import run_loop


def handler(event, context):
    return run_loop("settle_payments", 2.0, payment.settle_due)
