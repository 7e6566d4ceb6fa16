"""What a payment firm is asked, and what can be known of its answer.

What a gateway surely did and what nobody can know are different things, and the type says which: a timeout, a 5xx or a
cut connection is ``UNKNOWN`` (the money may be taken), ``NOT_SENT`` means that no byte of the request left us.
"""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What became of a payment at its gateway."""

    CAPTURED = "captured"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    """Nothing is taken (any charge went back in full) and nothing can be taken under this key any more."""
    NEVER_SEEN = "never-seen"
    NOT_SENT = "not-sent"
    """Nothing was asked, in none of the tries: the connection was refused, or the circuit is open."""
    UNKNOWN = "unknown"


SURE = (Outcome.CAPTURED, Outcome.DECLINED, Outcome.CANCELLED)
"""The outcomes that settle a payment."""
NO_ANSWER = (Outcome.NOT_SENT, Outcome.UNKNOWN)
"""The outcomes that speak against the firm. A decline does not: it is an answer."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One charge as a gateway is asked for it; ``amount`` in the currency's smallest unit."""

    key: str
    order_id: str
    amount: int
    currency: str
    method: str
