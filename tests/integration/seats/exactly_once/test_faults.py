"""Something breaks in the middle of a race over HTTP: no seat is sold twice, and retries get the first answer."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from booking.operations.audit import Verdict
from booking.platform.postgres import primary
from booking.platform.settings import settings
from encore_stack.instance import Instance
from support.gateway_process import GatewayProcess, wrong_clock
from support.proxy import Proxy, pass_on
from support.races import Answer, Crowd, Wish, all_over_http, assert_sold_once, make_wishes
from support.redis import start_server
from support.replica import replay_of
from support.rows import locked_seats, wait_until_some_wait
from support.shop import Shop, new_key
from support.sound import SOUND

pytestmark = pytest.mark.race

Audit = Callable[[], Verdict]
Start = Callable[..., GatewayProcess]
_HELD = re.compile(rb'"outcome" ?: ?"held"')
"""In Postgres' answer to who has got seats: it is sent when the transaction is committed, and not before."""
_ANY_HOLD = re.compile(rb'"status" ?: ?"held"')
"""In the same, and in the answer to a retry of it."""
_WAIT_S_MAX = 20
_FURTHER_THAN_A_HOLD_S = 420


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def everybody_insists(url: str, wishes: list[Wish], answers: list[Answer]) -> list[Answer]:
    """Who got no answer asks again, until there is one."""
    return [answer if answer.is_final else wish.insist(url) for wish, answer in zip(wishes, answers, strict=True)]


def assert_sound(url: str, wishes: list[Wish], answers: list[Answer], audit: Audit) -> None:
    """Each seat is sold once, each winner's retry gets the winner's answer, the audit is clean."""
    winners = assert_sold_once(wishes, answers)
    assert winners, "everybody lost"
    assert all_over_http(url, [wish for wish, _ in winners]) == [answer for _, answer in winners]
    assert_sold_once(wishes, answers)
    assert audit().violations == SOUND


def test_redis_is_killed_after_the_locks_were_taken(
    opened: ExitStack, start_fast_gateway: Start, free_port: Callable[[], int], tmp_path: Path, audit: Audit
) -> None:
    port = free_port()
    locks = ExitStack()
    opened.enter_context(locks)
    start_server(locks, tmp_path / "first", [f"port {port}"])
    url = start_fast_gateway(locks_redis_url=f"redis://127.0.0.1:{port}/0").url
    wishes = make_wishes(Shop.open(seats=8), 60, 8)

    with locked_seats(wishes[0].shop.concert_id, list(range(1, 9))):
        crowd = Crowd(url, wishes)
        wait_until_some_wait(2)
        locks.close()  # SIGKILL, and nothing was kept
    answers = everybody_insists(url, wishes, crowd.answers())

    assert_sound(url, wishes, answers, audit)
    start_server(opened, tmp_path / "second", [f"port {port}"])  # knows of no lock and of no hold
    assert_sound(url, wishes, answers, audit)


@pytest.mark.parametrize("how_often", ["once", "always"])
def test_the_connection_is_cut_after_the_commit_and_before_the_answer(
    fragile: GatewayProcess, proxy: Proxy, audit: Audit, how_often: str
) -> None:
    url = fragile.url
    cut: list[bytes] = []

    def cut_what_says_held(piece: bytes) -> bool:
        if not _ANY_HOLD.search(piece) or (cut and how_often == "once"):
            return True
        cut.append(piece)
        return False

    proxy.rule = cut_what_says_held
    wishes = make_wishes(Shop.open(seats=8), 40, 8)

    first = all_over_http(url, wishes)
    proxy.rule = pass_on

    assert cut
    assert how_often == "once" or 201 not in {answer.status for answer in first}
    assert_sound(url, wishes, everybody_insists(url, wishes, first), audit)


def test_the_connections_are_ended_before_the_commit(url: str, audit: Audit) -> None:
    wishes = make_wishes(Shop.open(seats=8), 40, 8)

    with locked_seats(wishes[0].shop.concert_id, list(range(1, 9))):
        crowd = Crowd(url, wishes)
        for pid in wait_until_some_wait(2):
            assert primary().value("select pg_terminate_backend(:pid)", pid=pid)
    answers = everybody_insists(url, wishes, crowd.answers())

    assert_sound(url, wishes, answers, audit)


def test_the_processes_are_killed_between_commit_and_answer(
    fragile: GatewayProcess, proxy: Proxy, audit: Audit
) -> None:
    committed, killed = threading.Event(), threading.Event()

    def keep_back(piece: bytes) -> bool:
        if not _HELD.search(piece) or killed.is_set():
            return True
        committed.set()
        return killed.wait(_WAIT_S_MAX) and False

    proxy.rule = keep_back
    wishes = make_wishes(Shop.open(seats=8), 60, 8)

    crowd = Crowd(fragile.url, wishes)
    assert committed.wait(_WAIT_S_MAX)
    fragile.kill_workers()
    killed.set()
    first = crowd.answers()

    assert Answer(0, {}) in first, "nobody was left without an answer"
    assert_sound(fragile.url, wishes, everybody_insists(fragile.url, wishes, first), audit)


def test_a_replica_that_lags_sells_nothing_twice_and_hides_no_hold(instance: Instance, url: str, audit: Audit) -> None:
    shop = Shop.open(seats=8)
    wishes = make_wishes(shop, 60, 8)
    assert shop.map_state(1) == "available"

    with replay_of(instance) as replay:
        replay.pause()
        answers = all_over_http(url, wishes)
        winners = assert_sold_once(wishes, answers)
        taken = {seat for wish, _ in winners for seat in wish.seats}
        assert {number for number in range(1, 9) if shop.map_state(number) == "held"} == taken
        assert_sound(url, wishes, answers, audit)


def test_processes_have_wrong_clocks(url: str, start_fast_gateway: Start, audit: Audit, tmp_path: Path) -> None:
    ahead, behind = (
        start_fast_gateway(workers=1, python_path=wrong_clock(tmp_path / name, off_by_s)).url
        for name, off_by_s in (("ahead", _FURTHER_THAN_A_HOLD_S), ("behind", -_FURTHER_THAN_A_HOLD_S))
    )
    shop = Shop.open(seats=8)
    wishes = make_wishes(shop, 60, 8)

    answers = Crowd(url, wishes, also_to=[ahead, behind]).answers()

    for clock in (url, ahead, behind):
        assert_sound(clock, wishes, answers, audit)
    [[shortest_s, longest_s]] = primary().rows(
        "select min(extract(epoch from held_until - clock_timestamp())), max(extract(epoch from"
        " held_until - clock_timestamp())) from seat where schedule_id = :id and state = 'held'",
        id=shop.concert_id,
    )
    assert longest_s <= settings().hold_ttl_s < shortest_s + 60, "a hold does not end by the database's clock"
    won = [answer.body for answer in answers if answer.status == 201]
    for clock, lapsed in ((ahead, won[0]), (behind, won[1])):
        shop.lapse(lapsed)
        assert Wish(shop, f"late-{lapsed['seats'][0]}", lapsed["seats"], new_key()).over_http(clock).status == 201
    assert audit().violations == SOUND
