"""I5's walk over the admissions, against the rule as the design words it."""

from hypothesis import example, given
from hypothesis import strategies as st

from booking.operations.audit import Admission, overtakings

_lines = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), max_size=8).map(
    lambda rows: [
        Admission(f"pass-{number}", number, place, min(entered_after, number - 1))
        for number, (place, entered_after) in enumerate(rows, start=1)
    ]
)


def by_the_rule(line: list[Admission]) -> set[str]:
    return {
        f"admission {later.pass_id}"
        for earlier in line
        for later in line
        if later.place < earlier.place and later.number > earlier.number and later.entered_after < earlier.number
    }


@given(_lines)
@example([Admission("a", 1, 5, 0), Admission("b", 2, 1, 1), Admission("c", 3, 4, 0)])
def test_every_overtaking_is_found_and_nothing_else(line: list[Admission]) -> None:
    assert {subject for subject, _ in overtakings(line)} == by_the_rule(line)
