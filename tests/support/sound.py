"""What the audit finds where nothing is wrong: compared with ``==``, so that a failing test shows what is."""

from booking.operations.audit import INVARIANTS, Finding

SOUND: dict[str, list[Finding]] = {invariant.name: [] for invariant in INVARIANTS}
