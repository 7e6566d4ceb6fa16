"""Cases beside their floors: each round measures both, one right after the other, and keeps their ratio.

Machines are noisy and shared, so a rate says little and a ratio within one round much. The order changes from round to
round, so that what slows the machine down for a while does not always meet the same side.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.tools import ToolError


@dataclass(frozen=True)
class Case:
    """Something whose cost is compared with its floor's. Both are measured as rates: how many a second.

    ``times_max``: how many times the floor's cost it may have, by design; None where nothing is promised.
    """

    group: str
    name: str
    floor_name: str
    rate: Callable[[], float]
    floor_rate: Callable[[], float]
    times_max: float | None = None


@dataclass
class Result:
    """The rates of all rounds. ``fault`` says why there are none of some round: then there are no ratios."""

    group: str
    name: str
    floor_name: str
    times_max: float | None
    rates: list[float] = field(default_factory=list)
    floor_rates: list[float] = field(default_factory=list)
    fault: str | None = None

    @property
    def ratios(self) -> list[float]:
        """Each round's cost as a multiple of its floor's."""
        return [floor / rate for rate, floor in zip(self.rates, self.floor_rates, strict=True)]

    @property
    def times(self) -> tuple[float, float, float]:
        """Median, least and most of the ratios."""
        ratios = self.ratios
        return statistics.median(ratios), min(ratios), max(ratios)


def measure(case: Case, rounds: int, tell: Callable[[str], None]) -> Result:
    """Measure a case and its floor ``rounds`` times. A case that cannot be measured does not end the others."""
    result = Result(case.group, case.name, case.floor_name, case.times_max)
    sides = [(case.rate, result.rates), (case.floor_rate, result.floor_rates)]
    for nth in range(rounds):
        tell(f"{case.group}: {case.name}, round {nth + 1} of {rounds}")
        for rate, rates in sides if nth % 2 else reversed(sides):
            try:
                rates.append(rate())
            except ToolError as fault:
                result.fault = str(fault)
                return result
    return result
