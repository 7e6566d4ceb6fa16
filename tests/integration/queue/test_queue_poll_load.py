"""The polls of whole lines, up to a million people, as the line's own Lua tells them."""

import pytest

from booking.platform.settings import settings
from line.polls import poll_load
from support.redis import runs_on

pytestmark = runs_on("single")  # the rule is the same on all of them


@pytest.mark.parametrize("waiting", [1_000, 100_000, 1_000_000])
def test_a_line_that_moves_keeps_its_budget_and_nobody_comes_too_late_for_the_pass(open_line, waiting):
    line = open_line(rate_per_s=200)
    line.join("somebody")  # who finds the line running

    load = poll_load(line.concert_id, waiting, 200)

    # At first all poll for the first time: a crowd that joins in one second is not spread evenly yet.
    assert load.polls_per_s_max <= 1.5 * settings().polls_per_s_max
    assert load.polls_per_s_mean <= settings().polls_per_s_max
    assert load.late_s_max < settings().claim_window_s
    assert load.polls_each_mean < 15
