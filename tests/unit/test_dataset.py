"""The data set's counts and seat plan."""

import pytest

from encore_stack.dataset import FULL, Counts, UnusableCounts, _seat_plan


@pytest.mark.parametrize("counts", [(0, 1, 1), (3, 10, 100), (1, 101, 101), (2, 4, 7), (1, 1, 0)])
def test_counts_that_do_not_share_evenly_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(UnusableCounts):
        Counts(*counts)


def test_the_full_set_is_the_reports() -> None:
    assert (FULL.concerts, FULL.schedules, FULL.seats) == (100, 10_000, 1_500_000)


@pytest.mark.parametrize("seats", [1, 2, 10, 149, 150, 1000])
def test_every_seat_has_its_number_and_place(seats: int) -> None:
    plan = list(_seat_plan(seats))

    assert [number for number, *_ in plan] == list(range(1, seats + 1))
    places = {(section, row) for _, section, row, _ in plan}
    assert all(price > 0 for *_, price in plan)
    assert max(sum(1 for _, s, r, _ in plan if (s, r) == place) for place in places) <= 10
