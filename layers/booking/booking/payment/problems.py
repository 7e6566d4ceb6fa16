"""What can be refused about payments."""

from booking.platform.problems import Conflict, PaymentRequired


class PaymentDeclined(PaymentRequired):
    """The payment was declined; the seats are still held for you."""

    slug = "payment-declined"


class AlreadyPaid(Conflict):
    """This reservation is paid already."""

    slug = "already-paid"


class RefundDeadlinePassed(Conflict):
    """Confirmed reservations of this concert can no longer be given back."""

    slug = "refund-deadline-passed"
