"""Many people, one seat: exactly one wins, on every way in which Redis is run, and without it.

``exactly_once/`` has the larger races, the faults in the middle of them, and each guard's negative control.
"""

from collections.abc import Callable

import pytest

from booking.operations.audit import Verdict
from booking.seats.holds import expire_holds
from encore_stack.stack import Stack
from support.races import everybody_at_once, outcome_of
from support.redis import TOPOLOGIES
from support.rows import deadlocks
from support.shop import Shop, new_key
from support.sound import SOUND

_PEOPLE = 200
AWAY = "away"
"""In place of a topology: Redis is not there, the database alone decides."""
REDIS_DATABASE = 1


@pytest.fixture(params=[*TOPOLOGIES, AWAY])
def redis_topology(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def redis_urls(request: pytest.FixtureRequest, redis_topology: str) -> dict[str, str]:
    if redis_topology == AWAY:
        return dict.fromkeys(("queue", "locks", "cache"), "redis://127.0.0.1:1/0")
    stack: Stack = request.getfixturevalue("redis_stack")
    return stack.instance.redis_urls(REDIS_DATABASE)


@pytest.fixture(autouse=True)
def patience(redis_topology: str, encore_environment: None, use_settings: Callable[..., object]) -> None:
    """Where nobody keeps the crowd from Postgres, they all wait there: on a busy machine longer than its timeouts."""
    if redis_topology == AWAY:
        use_settings(lock_timeout_ms=60_000, statement_timeout_ms=60_000)


@pytest.mark.race
def test_two_hundred_people_one_seat_one_wins(shop: Shop, audit: Callable[[], Verdict]) -> None:
    outcomes = everybody_at_once(_PEOPLE, lambda n: outcome_of(lambda: shop.hold([1], f"person {n}")))

    assert outcomes == {"held": 1, "seat-taken": _PEOPLE - 1}
    assert shop.ledger(1) == ["held"]
    assert audit().violations == SOUND


@pytest.mark.race
def test_overlapping_groups_never_share_a_seat_nor_deadlock(audit: Callable[[], Verdict]) -> None:
    shop = Shop.open(seats=20, limit=100)
    groups = [[(n * 7 + k) % 20 + 1 for k in range(n % 4 + 1)] for n in range(_PEOPLE)]

    outcomes = everybody_at_once(
        _PEOPLE, lambda n: outcome_of(lambda: shop.hold(list(reversed(groups[n])), f"person {n}"))
    )

    assert set(outcomes) <= {"held", "seat-taken"}
    assert all(len(shop.ledger(number)) <= 1 for number in range(1, 21))
    assert audit().violations == SOUND


@pytest.mark.race
def test_one_persons_twins_get_one_hold_and_one_answer(shop: Shop, audit: Callable[[], Verdict]) -> None:
    key = new_key()
    answers: list[str] = []

    everybody_at_once(20, lambda _: answers.append(shop.hold([1], key=key)["reservation_id"]) or "held")

    assert len(answers) == 20
    assert len(set(answers)) == 1
    assert shop.ledger(1) == ["held"]
    assert audit().violations == SOUND


@pytest.mark.race
def test_one_person_asking_many_times_at_once_stays_within_the_limit(audit: Callable[[], Verdict]) -> None:
    shop = Shop.open(seats=40)

    outcomes = everybody_at_once(20, lambda n: outcome_of(lambda: shop.hold([2 * n + 1, 2 * n + 2])))

    assert outcomes == {"held": 2, "over-limit": 18}
    assert audit().violations == SOUND


@pytest.mark.race
def test_sweeping_and_holding_at_once_never_deadlock() -> None:
    shop = Shop.open(seats=60, limit=100)
    lapsed = [shop.hold([(7 * n) % 60 + 1, (7 * n + 31) % 60 + 1], f"slow {n}") for n in range(0, 60, 2)]
    for held in lapsed:
        shop.lapse(held)
    before = deadlocks()

    def work(n: int) -> str:
        if n % 8 == 0:
            expire_holds()
            return "swept"
        return outcome_of(lambda: shop.hold([(n * 11 + k) % 60 + 1 for k in range(4)], f"quick {n}"))

    outcomes = everybody_at_once(80, work, at_once=20)

    assert set(outcomes) <= {"held", "seat-taken", "swept"}
    assert deadlocks() == before
