"""What an incident may do and say while people come and go."""

import asyncio
import time
from collections.abc import Callable

from drills.harness.crowd import Crowd
from drills.harness.evidence import Evidence, Mark, MarkKind
from drills.harness.stage import Stage
from encore_stack import progress

_LOOK_S = 0.05


class IncidentFailed(Exception):
    """The incident did not go as its script says; the message says where it stopped."""


class Scene:
    """One drill under way. ``longer`` stretches the waits of its script (1: as it is written)."""

    def __init__(self, stage: Stage, crowd: Crowd, evidence: Evidence, longer: float = 1.0) -> None:
        self.stage = stage
        self.crowd = crowd
        self._evidence = evidence
        self._longer = longer

    def clock(self) -> float:
        """Seconds since the drill began."""
        return self.crowd.clock()

    async def wait(self, seconds: float) -> None:
        """Let people come and go for so long, stretched with the drill."""
        await asyncio.sleep(seconds * self._longer)

    async def do[T](self, act: Callable[[], T]) -> T:
        """What takes a while, beside the people: starting a server, asking it.

        Interrupted, it is done first: what is put right while it is still being broken would break again.
        """
        doing = asyncio.ensure_future(asyncio.to_thread(act))
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait([doing])
            raise

    def undo_later(self, undo: Callable[[], object]) -> None:
        """Put right at the end what the incident is about to break, also when it is interrupted. Safe where it has done
        so itself: the last that was broken is put right first."""
        self.stage.undo.callback(undo)

    async def until(self, happened: Callable[[], bool], within_s: float, what: str) -> float:
        """Wait for something to be seen; the seconds it took. Raises IncidentFailed."""
        started_s = time.monotonic()
        while not await self.do(happened):
            if time.monotonic() - started_s > within_s:
                raise IncidentFailed(f"{what}: not within {within_s:.0f} s")
            await asyncio.sleep(_LOOK_S)
        return time.monotonic() - started_s

    def breaks(self, words: str) -> None:
        """Something is about to be broken: what goes wrong from here on is its doing."""
        self._mark("break", words)

    def healed(self, words: str) -> None:
        """It is whole again."""
        self._mark("heal", words)

    def note(self, words: str) -> None:
        """Something for the timeline."""
        self._mark("note", words)

    @property
    def figures(self) -> dict[str, float]:
        """What the incident has measured so far, by name."""
        return self._evidence.figures

    def figure(self, name: str, value: float) -> None:
        """Something that a bound asks for."""
        self._evidence.figures[name] = value

    def _mark(self, kind: MarkKind, words: str) -> None:
        mark = Mark(self.clock(), kind, words)
        self._evidence.marks.append(mark)
        tell(mark)


def tell(mark: Mark) -> None:
    """The mark as a line of the terminal, as it happens."""
    shout = {"break": "BREAK  ", "heal": "HEALED "}.get(mark.kind, "")
    progress.line(f"{mark.at_s:6.1f} s  {shout}{mark.words}")
