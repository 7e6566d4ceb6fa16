"""Payment: at one gateway at a time and under one key, so that whatever fails nobody is charged twice."""

from booking.payment.cancellation import cancel_reservation
from booking.payment.payments import PaidOrPending, pay
from booking.payment.settlement import SETTLING_JOB, circuits, count_open_payments, settle_due, show_settled, work

__all__ = [
    "SETTLING_JOB",
    "PaidOrPending",
    "cancel_reservation",
    "circuits",
    "count_open_payments",
    "pay",
    "settle_due",
    "show_settled",
    "work",
]
