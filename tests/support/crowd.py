"""People at a line in simulated time: the real scripts on the real Redis, a stopped clock that the simulation moves.

Everybody does as told (polls when told, a moment late) unless the test makes them abandon it.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from booking.platform.postgres import primary
from booking.platform.problems import Refusal
from booking.queue import end_turn, read_pass
from booking.queue.line import LineClosed, Turn, set_gate
from support.line import Line

TICK_S = 1.0
"""The background loop's."""


@dataclass
class Visit:
    """What one person met with. Times are simulated seconds since the crowd began."""

    name: str
    joined_s: float
    told: list[tuple[float, int, int | None]] = field(default_factory=list)
    """Each answer while waiting: when, the position, the ETA."""
    due_s: float = 0
    """When they were last told to poll."""
    in_s: float | None = None
    """When they learned that they are in."""
    refused: str | None = None


class Crowd:
    """A simulation of one line; the same ``seed`` makes the same crowd."""

    def __init__(self, line: Line, seed: int = 1) -> None:
        self.line = line
        self.random = random.Random(seed)
        random.seed(seed)  # the jitter of the poll times
        self.visits: dict[str, Visit] = {}
        self.polls: Counter[int] = Counter()
        """Joins and polls in each second."""
        self.admitted: list[float] = []
        """When the line let somebody in, whether they knew or not."""
        line.clock.stop()
        self._start_us = line.clock.now_us
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._left = 0
        """What is still to come, but for what comes again and again."""
        self._settings: dict[str, object] | None = None
        self.every(TICK_S, self.tick)

    @property
    def now_s(self) -> float:
        return (self.line.clock.now_us - self._start_us) / 1e6

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something at a moment of the simulation."""

        def once() -> None:
            self._left -= 1
            act()

        self._left += 1
        self._schedule(seconds, once)

    def every(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something again and again, as long as there is something else to come."""

        def again() -> None:
            act()
            self._schedule(self.now_s + seconds, again)

        self._schedule(self.now_s + seconds, again)

    def _schedule(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._start_us + round(seconds * 1e6), next(self._order), act))

    def run(self, until_s: float) -> None:
        """Let time pass, until then at most: it stops when nobody has anything left to do."""
        end_us = self._start_us + round(until_s * 1e6)
        while self._left and self._events[0][0] <= end_us:
            at_us, _, act = heapq.heappop(self._events)
            self.line.clock.move_to(at_us)
            act()

    def tick(self) -> None:
        """The background loop's, without its copy."""
        if self._settings is None:
            self.turn_gate("resume")
        set_gate(self.line.concert_id, self._settings)

    def turn_gate(self, action: str, value: object = None) -> None:
        self.line.gate(action, value)
        self._settings = primary().document("select line_settings(:id)::text", id=self.line.concert_id)

    def arrive(self, name: str, at_s: float, *, stays_s: float | None = None, abandons: bool = False) -> None:
        """Somebody joins, waits, shops for so long and pays (None: shops on). ``abandons``: joins and never polls."""
        self.visits[name] = Visit(name, at_s)

        def join() -> None:
            self._hear(name, lambda: self.line.join(name), stays_s, abandons)

        self.at(at_s, join)

    def _hear(self, name: str, ask: Callable[[], Turn], stays_s: float | None, abandons: bool) -> None:
        visit = self.visits[name]
        self.polls[int(self.now_s)] += 1
        try:
            turn = ask()
        except LineClosed as closed:
            visit.due_s = self.now_s + closed.retry_after_s
            self._ask_when_due(name, ask, stays_s, abandons)
            return
        except Refusal as refused:
            visit.refused = refused.slug
            return
        if turn.state == "admitted":
            visit.in_s = self.now_s
            if stays_s is not None and not abandons:
                self.at(self.now_s + stays_s, lambda: self._pay(turn))
            return
        visit.told.append((self.now_s, turn.position, turn.eta_s))
        visit.due_s = self.now_s + turn.poll_after_ms / 1000
        if not abandons:
            self._ask_when_due(name, lambda: self.line.poll(name), stays_s, abandons)

    def _ask_when_due(self, name: str, ask: Callable[[], Turn], stays_s: float | None, abandons: bool) -> None:
        late_s = self.random.uniform(0.02, 0.5)
        self.at(self.visits[name].due_s + late_s, lambda: self._hear(name, ask, stays_s, abandons))

    def _pay(self, turn: Turn) -> None:
        shopper = read_pass(turn.shop_pass)
        end_turn(self.line.concert_id, shopper.person, shopper.pass_id, "paid")
