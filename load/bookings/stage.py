"""The whole stack with the full data set, and payment firms that take their time."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass

from benchmarks import stage as benchmarks_stage
from benchmarks.tools import ToolError
from booking.platform.resources import read_text
from drills.harness.firms import set_faults
from drills.harness.watch import FIRMS, consumer_lags
from encore_stack.commands import up
from encore_stack.dataset import FULL, load
from encore_stack.instance import Instance
from encore_stack.parts.postgres import connected
from encore_stack.process_settings import adopt_settings
from encore_stack.supervisor import Supervisor

DRAIN_S_MAX = 60.0
_NICE = -5
_LOOK_EVERY_S = 0.1
_ASK_S_MAX = 10.0
_UNDRAINED = read_text("bookings", "sql/undrained.sql")
_TICKET_DELAYS = read_text("bookings", "sql/ticket_delays.sql")
_UNSOLD_CONCERTS = read_text("bookings", "sql/unsold_concerts.sql")


@dataclass(frozen=True, slots=True)
class OnTheWay:
    """What is not drained: events not in Kafka, events not consumed, reservations without ticket, seats not counted."""

    not_in_kafka: int
    not_consumed: int
    without_ticket: int
    not_counted: int

    @property
    def is_nothing(self) -> bool:
        return not (self.not_in_kafka or self.not_consumed or self.without_ticket or self.not_counted)


class Stage(benchmarks_stage.Stage):
    """The benchmarks' instance with all of its parts at work."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(tell)
        self._tell = tell

    def set_up(self) -> None:
        """Start everything, load what is missing. Raises ToolError, and what starting the stack raises."""
        self._tell("the stack")
        with redirect_stdout(sys.stderr):
            if up.run(["--no-tour"]):
                raise ToolError("the stack did not come up (lines above)")
        self.instance = Instance.load(benchmarks_stage.INSTANCE)
        adopt_settings(self.instance)
        self._tell("database")
        load(self.instance.database_url(self.instance.postgres_primary), FULL, self._tell)
        self.rows((benchmarks_stage.SQL / "setup.sql").read_text())
        self._put_others_first()

    def _put_others_first(self) -> None:
        """Give the CPU first to what is no part of the shop and would have machines of its own: firms and buyers.

        A firm that waits for the CPU does not answer in the time that it is told to take. Where that is not allowed,
        the measurement is made all the same.
        """
        processes = Supervisor(self.instance).processes()
        with suppress(PermissionError):
            for pid in (os.getpid(), *(processes[firm].pid for firm in FIRMS)):
                os.setpriority(os.PRIO_PROCESS, pid, _NICE)

    def rows(self, sql: str, **parameters: object) -> list[list[object]]:
        """What a statement answers at the primary."""
        with connected(self.instance, self.instance.postgres_primary, timeout_s=_ASK_S_MAX) as connection:
            return list(connection.run(sql, **parameters) or [])

    def unsold_concerts(self, number: int) -> Sequence[int]:
        """Concerts of which every seat is free. Raises ToolError."""
        found = [int(str(concert_id)) for [concert_id] in self.rows(_UNSOLD_CONCERTS, number=number)]
        if len(found) < number:
            raise ToolError("no concert is left of which every seat is free: scripts/down --wipe of this instance")
        return found

    def firms_take(self, delay_ms: int) -> None:
        """From now on the payment firms answer after so long."""
        for firm in FIRMS:
            set_faults(self.instance, firm, delay_ms=delay_ms)

    def on_the_way(self, concert_id: int) -> OnTheWay:
        """What is not drained at this moment; the poller says once a second what is not consumed."""
        [[not_in_kafka, without_ticket, not_counted]] = self.rows(_UNDRAINED, concert_id=concert_id)
        lag = sum(consumer_lags(self.instance).values())
        return OnTheWay(int(str(not_in_kafka)), lag, int(str(without_ticket)), int(str(not_counted)))

    def drain(self, concert_id: int) -> tuple[float | None, float | None]:
        """Wait until nothing is on its way; after how many seconds the last ticket was there and counted, and the last
        event was seen to be consumed. None: not within ``DRAIN_S_MAX``."""
        began_s, asked = time.monotonic(), time.time()
        effects_s: float | None = None
        while (now_s := time.monotonic() - began_s) < DRAIN_S_MAX:
            left = self.on_the_way(concert_id)
            if effects_s is None and not (left.not_in_kafka or left.without_ticket or left.not_counted):
                effects_s = now_s
            if left.is_nothing and self._poller_spoke_at() > asked + (effects_s or 0):
                return effects_s, now_s
            time.sleep(_LOOK_EVERY_S)
        return effects_s, None

    def ticket_delays_s(self, concert_id: int) -> list[float]:
        """How long after its payment was settled each ticket was issued, the shortest first."""
        return [float(str(delay_s)) for [delay_s] in self.rows(_TICKET_DELAYS, concert_id=concert_id)]

    def _poller_spoke_at(self) -> float:
        return (self.instance.run_dir / "poller.json").stat().st_mtime
