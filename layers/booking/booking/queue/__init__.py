"""The waiting line: who comes next, how many are inside, and the signed papers that prove a person's place.

Redis keeps the line while it moves (``lua/``, ``platform.redis_keys``); Postgres remembers who was let in
(``admissions``); a person's place lives in the token they hold (``tokens``), so a wiped Redis forgets nobody.
"""

from booking.queue.line import TurnOver, end_turn, join_line, leave_line, position, set_sold_out
from booking.queue.people import person_of
from booking.queue.tokens import Pass, Token, owner_of, read_pass, read_token

__all__ = [
    "Pass",
    "Token",
    "TurnOver",
    "end_turn",
    "join_line",
    "leave_line",
    "owner_of",
    "person_of",
    "position",
    "read_pass",
    "read_token",
    "set_sold_out",
]
