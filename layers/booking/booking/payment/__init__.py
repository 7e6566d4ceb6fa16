"""Payment: one gateway for each payment, asked with one key, so that whatever fails nobody is charged twice."""

from booking.payment.cancellation import cancel_reservation
from booking.payment.payments import OPTIONS, PaidOrPending, pay
from booking.payment.settlement import settle_due, show_settled

__all__ = ["OPTIONS", "PaidOrPending", "cancel_reservation", "pay", "settle_due", "show_settled"]
