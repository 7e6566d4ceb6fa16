"""How scripts/bench --bookings judges what it has measured; the measurements need no test that times them."""

import json
import os
from dataclasses import replace

import pytest

from benchmarks import machine
from bookings.minute import TARGET_PER_S, Minute, Spread
from bookings.run import Bookings, as_json, as_markdown
from bookings.slow_firms import BUSY, Level, shortcomings
from bookings.stage import OnTheWay

SPREAD = Spread(7_200, 0.1, 0.2, 0.3, 0.4)
MET = Minute(
    duration_s=60.0,
    paid=60 * TARGET_PER_S,
    paid_in_all=7_300,
    seats=10_950,
    tickets_seen=7_300,
    taken_before=3,
    faults={},
    steps={"1 join": SPREAD},
    booked=SPREAD,
    ticket=SPREAD,
    slowest_second=101,
    most_on_the_way={"events not consumed": 300.0},
    effects_s=0.5,
    drained_s=1.2,
    left=OnTheWay(0, 0, 0, 0),
    cpu_s={"gateway": 20.0, "danal": 1.0, "payco": 2.0, "every_minute_expire_holds": 0.5},
    machine_busy=0.8,
)


def level(connections: int, paid_per_s: float, machine_busy: float = 0.3) -> Level:
    return Level(connections, paid_per_s, 0.76, 0.9, machine_busy, 3, {}, 1.0)


def test_a_minute_with_every_event_drained_meets_the_target() -> None:
    assert MET.per_s == TARGET_PER_S
    assert MET.shortcomings() == []


@pytest.mark.parametrize(
    ("missed", "words"),
    [
        (replace(MET, paid=60 * TARGET_PER_S - 1), "fewer than 120"),
        (replace(MET, faults={"7 pay 202": 4}), "4 buyers gave up: 7 pay 202"),
        (
            replace(MET, drained_s=None, left=OnTheWay(0, 9, 0, 0)),
            "not drained after 60 s: OnTheWay(",
        ),
        (replace(MET, tickets_seen=7_299), "7300 paid and 7299 have seen"),
    ],
)
def test_each_way_to_miss_it_is_told(missed: Minute, words: str) -> None:
    [told] = missed.shortcomings()

    assert words in told


def test_the_rate_must_grow_with_the_buyers_while_the_cpu_is_not_busy() -> None:
    assert shortcomings([level(25, 33), level(50, 66), level(100, 120)]) == []
    assert "100 buyers pay 66 times a second" in shortcomings([level(50, 66), level(100, 66)])[0]


def test_once_the_cpu_is_busy_the_rate_need_not_grow() -> None:
    assert shortcomings([level(400, 300, BUSY), level(600, 290, BUSY)]) == []


def test_payments_that_fail_or_are_not_drained_are_told() -> None:
    bad = replace(level(25, 33), faults={"503": 2}, drained_s=None)

    assert shortcomings([bad]) == ["25 buyers: 2 of 503", "25 buyers: not drained"]


def test_the_table_adds_up_what_belongs_together() -> None:
    told = as_markdown(Bookings(MET, [level(25, 33)]))

    assert "| simulated firms | 3.0 |" in told
    assert "| other loops | 0.5 |" in told
    assert "| all of these | 23.5 |" in told
    assert "| 25 | 33 | 760 | 900 | 3 | 30 % | 1.0 s |" in told
    assert told.endswith("All targets are met.")


def test_json_has_all_of_it() -> None:
    told = json.loads(as_json(Bookings(MET, [level(50, 66), level(100, 66)]), audit_passed=True))

    assert told["minute"]["steps"]["1 join"]["p99"] == SPREAD.p99
    assert [one["connections"] for one in told["slow_firms"]] == [50, 100]
    assert len(told["shortcomings"]) == 1
    assert told["audit_passed"] is True


def test_cpu_of_the_machine_goes_up_as_it_works() -> None:
    busy_s, all_s = machine.machine_s()
    started_s = os.times().user
    while os.times().user - started_s < 0.05:
        pass
    busy_after_s, all_after_s = machine.machine_s()

    assert 0.02 <= busy_after_s - busy_s <= all_after_s - all_s + 0.001  # equal on a busy machine, but for rounding
