"""The files that functions log to.

The executor writes all lines of an invocation at once, when it has ended, into one file for each function; of one that
works for longer, what has come each second. The fast gateway runs the steps in its own processes and has one log for
all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from encore_stack.functions import DEPLOYED_PREFIX
from encore_stack.instance import Instance

GATEWAY = "gateway"
_END_OF_PART = ("REPORT RequestId:", "RUNNING RequestId:")
WRITTEN_AFTER_S_MAX = 2.0
"""How long after it was logged a line stands in the file, at most: a second, and what a busy machine adds."""


@dataclass(frozen=True, slots=True)
class Source:
    """A log file and the one that it was begun after, when that was full."""

    name: str
    path: Path
    has_invocations: bool = True
    """Whether its lines come in invocations or parts of one, each ended by a line of the executor; else each JSON line
    begins something new."""

    @property
    def older_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.1")

    def groups(self, lines: list[str]) -> Iterator[list[str]]:
        """The lines of each invocation or part of one, or of what belongs together. What is not ended comes last."""
        group: list[str] = []
        for line in lines:
            if group and not self.has_invocations and line.startswith("{"):
                yield group
                group = []
            group.append(line)
            if self.has_invocations and line.startswith(_END_OF_PART):
                yield group
                group = []
        if group:
            yield group

    def groups_backwards(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """As ``groups``, from lines that come last one first; each group's own lines are in order again."""
        group: list[str] = []
        for line in lines:
            if group and self.has_invocations and line.startswith(_END_OF_PART):
                yield group[::-1]
                group = []
            group.append(line)
            if not self.has_invocations and line.startswith("{"):
                yield group[::-1]
                group = []
        if group:
            yield group[::-1]


def all_sources(instance: Instance) -> list[Source]:
    """Every log that there is now: of the deployed functions, then of the fast gateway."""
    files = sorted((instance.log_dir / "functions").glob("*.log"))
    sources = [Source(path.stem.removeprefix(DEPLOYED_PREFIX), path) for path in files]
    gateway = instance.log_file(GATEWAY)
    return [*sources, Source(GATEWAY, gateway, has_invocations=False)] if gateway.exists() else sources
