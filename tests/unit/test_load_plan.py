"""Who buys what in a load run, and which runs are refused before they start."""

import csv
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from artillery.plan import (
    PROFILES,
    SMOKE,
    STEPS,
    NotEnoughSeats,
    UnusableLoad,
    arrivals,
    artillery_config,
    plan_buyers,
    write_buyers,
)

PLENTY = {1: 400, 2: 400, 3: 100}


def test_the_shares_of_a_full_run_are_small_and_always_the_same() -> None:
    buyers = plan_buyers(STEPS, PLENTY)

    assert len(buyers) == 150
    assert Counter(buyer.leaves for buyer in buyers) == {"": 138, "line": 6, "reservation": 6}
    assert Counter(buyer.method for buyer in buyers) == {"card": 137, "card_declined": 13}
    assert sum(buyer.repeats == "yes" for buyer in buyers) == 10
    assert {buyer.seats for buyer in buyers} == {1, 2, 3, 4}


def test_in_smoke_nobody_leaves_and_the_rare_ways_are_walked_too() -> None:
    buyers = plan_buyers(SMOKE, PLENTY)

    assert not any(buyer.leaves for buyer in buyers)
    assert any(buyer.method == "card_declined" for buyer in buyers)
    assert any(buyer.repeats for buyer in buyers)


def test_every_buyer_is_somebody_else_with_an_id_of_128_bits() -> None:
    ids = [buyer.user_id for run in range(2) for buyer in plan_buyers(STEPS, PLENTY)]

    assert len(set(ids)) == 300
    assert all(re.fullmatch("[0-9a-f]{32}", user_id) for user_id in ids)


def test_no_concert_is_asked_for_more_than_it_has() -> None:
    wanted: Counter[int] = Counter()
    for buyer in plan_buyers(STEPS, PLENTY):
        wanted[buyer.concert_id] += buyer.seats

    assert wanted[1] > 0
    assert wanted[2] > 0
    assert all(wanted[concert_id] <= free for concert_id, free in PLENTY.items())


def test_too_few_seats_are_said_before_the_run_with_what_to_do() -> None:
    with pytest.raises(NotEnoughSeats) as refusal:
        plan_buyers(STEPS, {1: 100})

    words = str(refusal.value)
    assert "150 buyers want" in words
    assert "have 100 free" in words
    assert "scripts/seed --full" in words
    fits = re.search(r"--users (\d+)", words)
    assert fits
    assert plan_buyers(replace(STEPS, users=int(fits[1])), {1: 100})
    with pytest.raises(NotEnoughSeats):
        plan_buyers(replace(STEPS, users=int(fits[1]) + 1), {1: 100})


def test_a_sold_out_hall_offers_no_smaller_run() -> None:
    with pytest.raises(NotEnoughSeats) as refusal:
        plan_buyers(STEPS, {})

    assert "--users" not in str(refusal.value)


@pytest.mark.parametrize("users", [1, 2, 3, 5, 8, 150, 4_999])
def test_exactly_all_buyers_arrive_in_the_time_given(users: int) -> None:
    phases = arrivals(replace(STEPS, users=users))

    assert sum(phase["arrivalCount"] for phase in phases) == users
    assert all(phase["arrivalCount"] > 0 for phase in phases)
    assert sum(int(phase["duration"].removesuffix("ms")) for phase in phases) <= STEPS.duration_s * 1000


@pytest.mark.parametrize(
    ("users", "duration_s", "think_scale", "option"),
    [
        (0, None, None, "--users"),
        (5_001, None, None, "--users"),
        (None, 0, None, "--duration"),
        (None, 901, None, "--duration"),
        (None, None, -0.1, "--think"),
        (None, None, 11, "--think"),
        (None, None, float("nan"), "--think"),
    ],
)
def test_loads_out_of_bounds_are_refused(
    users: int | None, duration_s: int | None, think_scale: float | None, option: str
) -> None:
    with pytest.raises(UnusableLoad, match=option):
        STEPS.with_load(users, duration_s, think_scale)


@pytest.mark.parametrize("name", PROFILES)
def test_the_ends_of_the_bounds_are_loads(name: str) -> None:
    assert PROFILES[name].with_load(5_000, 900, 0).users == 5_000
    assert PROFILES[name].with_load(1, 1, 10).duration_s == 1
    assert PROFILES[name].with_load(None, None, None) == PROFILES[name]


def test_artillery_finds_the_buyers_in_the_order_of_its_fields(tmp_path: Path) -> None:
    buyers = plan_buyers(SMOKE, PLENTY)
    write_buyers(buyers, tmp_path / "buyers.csv")

    config = artillery_config(SMOKE, "http://127.0.0.1:1/v1/", tmp_path / "buyers.csv", {"conditions": []})["config"]

    with (tmp_path / "buyers.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == config["payload"]["fields"]
    assert [row[0] for row in rows] == [buyer.user_id for buyer in buyers]
    assert config["target"] == "http://127.0.0.1:1/v1"
    assert Path(config["processor"]).is_file()
