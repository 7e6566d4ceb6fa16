"""What can be refused about seats and holds."""

from booking.platform.problems import Conflict, Forbidden, Gone, NotFound, Unprocessable


class ScheduleUnknown(NotFound):
    """There is no such schedule."""

    slug = "schedule-unknown"


class SeatsUnknown(NotFound):
    """There are no such seats."""

    slug = "seats-unknown"


class SectionUnknown(NotFound):
    """The schedule has no such section."""

    slug = "section-unknown"


class PassOfAnotherConcert(Forbidden):
    """This pass is for another concert."""

    slug = "pass-of-another-concert"


class SaleClosed(Gone):
    """The sale of this concert is closed."""

    slug = "sale-closed"


class SeatTaken(Conflict):
    """A seat that you asked for is taken; nothing was held."""

    slug = "seat-taken"


class TooFewSeatsLeft(Conflict):
    """There are not so many seats left; nothing was held."""

    slug = "too-few-seats-left"


class OverLimit(Conflict):
    """That would be more seats of this concert than one person may have."""

    slug = "over-limit"


class KeyReused(Unprocessable):
    """This Idempotency-Key came before with another request."""

    slug = "idempotency-key-reused"


class HoldExpired(Gone):
    """The hold is over."""

    slug = "hold-expired"


class PaymentUnderWay(Conflict):
    """A payment of this reservation is under way."""

    slug = "payment-in-progress"
