"""Many people, one seat: exactly one wins, with Redis and without. And the proof that these tests would notice if the
guards were gone.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import booking.seats
from booking.operations.audit import Auditor, Verdict
from booking.platform.postgres import primary
from booking.platform.problems import Refusal
from booking.platform.settings import settings
from booking.seats.holds import expire_holds
from encore_stack.stack import Stack
from support.redis import TOPOLOGIES, runs_on
from support.rows import deadlocks
from support.shop import Shop, new_key
from support.sound import SOUND

_FUNCTIONS = Path(booking.seats.__file__).parent / "sql" / "functions"
_PEOPLE = 200
_AT_ONCE = 40
_ROW_LOCK = "        for update\n"
_VERSION_CHECK = " and s.version = w.version"
_WINDOW = "    v_expires_at := v_now + make_interval"
"""Where a hold has read the seats and not yet written them: a pause here makes racers meet."""
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


def everybody_at_once(people: int, attempt: Callable[[int], str], at_once: int = _AT_ONCE) -> Counter[str]:
    """How the attempts of so many people ended, by outcome."""
    with ThreadPoolExecutor(at_once) as crowd:
        return Counter(crowd.map(attempt, range(people)))


def outcome_of(hold: Callable[[], object]) -> str:
    try:
        hold()
    except Refusal as refused:
        return refused.slug
    return "held"


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


# --- negative controls: the same race with the guards taken out, where no lock keeps the racers apart --------------


@pytest.fixture(scope="module")
def unguarded_url(make_database: Callable[[str], str]) -> str:
    """A database of its own, whose functions a test may weaken."""
    return make_database("encore_unguarded")


@pytest.fixture
def weaken(unguarded_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Work on the weakened database: ``weaken(row_lock=False, version_check=True)``."""
    monkeypatch.setenv("ENCORE_DATABASE_URL", unguarded_url)
    settings.cache_clear()

    def install(*, row_lock: bool, version_check: bool) -> None:
        hold = _without((_FUNCTIONS / "hold_seats.sql").read_text(), "" if row_lock else _ROW_LOCK)
        assert _WINDOW in hold
        hold = hold.replace(_WINDOW, "    perform pg_sleep(0.2);\n" + _WINDOW)
        change = _without((_FUNCTIONS / "change_seats.sql").read_text(), "" if version_check else _VERSION_CHECK)
        for function in (hold, change):
            primary().rows(function)

    yield install
    settings.cache_clear()


def _without(source: str, guard: str) -> str:
    assert guard in source, "the guard is no longer written like this: mend this negative control"
    return source.replace(guard, "")


def _race_for_one_seat() -> tuple[Shop, Counter[str]]:
    shop = Shop.open()
    return shop, everybody_at_once(8, lambda n: outcome_of(lambda: shop.hold([1], f"person {n}")), at_once=8)


@pytest.mark.race
@runs_on(AWAY)
@pytest.mark.parametrize(("row_lock", "version_check"), [(True, False), (False, True)])
def test_each_guard_alone_is_enough(
    weaken: Callable[..., None], unguarded_url: str, row_lock: bool, version_check: bool
) -> None:
    weaken(row_lock=row_lock, version_check=version_check)

    shop, outcomes = _race_for_one_seat()

    assert outcomes["held"] == 1
    assert shop.ledger(1) == ["held"]


@pytest.mark.race
@runs_on(AWAY)
def test_without_both_guards_the_seat_is_sold_twice_and_the_audit_says_so(
    weaken: Callable[..., None], unguarded_url: str
) -> None:
    weaken(row_lock=False, version_check=False)

    shop, outcomes = _race_for_one_seat()

    assert outcomes["held"] > 1, "the race proves nothing: without any guard it still had one winner"
    auditor = Auditor(unguarded_url, [])
    verdict = auditor.audit()
    auditor.close()
    assert any(f"seat 1 of schedule {shop.concert_id}" == subject for subject, _ in verdict.violations["I1"])
    # A second hold of a seat that is held, and has not lapsed, is a step that the ledger's rules refuse.
    assert verdict.violations["I7"]
    assert {name for name, found in verdict.violations.items() if found} == {"I1", "I7"}
