"""Guards of a sale, which a negative control takes out of the database and puts back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from booking.platform.postgres import primary


@dataclass(frozen=True)
class Out:
    """A guard in the source of an SQL function, and what stands in its place without it."""

    function: str
    guard: str
    instead: str = ""

    def apply(self) -> str:
        """On top of what has been changed in the function before. Returns the statement that undoes it."""
        source: str = primary().value("select pg_get_functiondef(cast(:name as regproc))", name=self.function)
        assert self.guard in source, f"{self.function} no longer says {self.guard!r}: mend this negative control"
        primary().rows(source.replace(self.guard, self.instead))
        return source


@dataclass(frozen=True)
class Dropped:
    """A constraint of a table, or an index, known by a part of its definition."""

    table: str
    part: str

    def apply(self) -> str:
        """Returns the statement that undoes it."""
        constraints = primary().rows(
            "select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = cast(:table as regclass)"
            " and position(:part in pg_get_constraintdef(oid)) > 0",
            table=self.table,
            part=self.part,
        )
        if constraints:
            [[name, definition]] = constraints
            primary().rows(f"alter table {self.table} drop constraint {name}")
            return f"alter table {self.table} add constraint {name} {definition}"
        definition = primary().value("select pg_get_indexdef(cast(:name as regclass))", name=self.part)
        primary().rows(f"drop index {self.part}")
        return str(definition)


Guard = Out | Dropped


@contextmanager
def without(guard: Guard) -> Iterator[None]:
    """The block runs without this guard."""
    undo = guard.apply()
    try:
        yield
    finally:
        primary().rows(undo)
