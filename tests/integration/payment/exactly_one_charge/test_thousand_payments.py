"""A thousand payments while the firms do all that firms do, processes are killed and database connections are cut."""

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from booking.operations.audit import Verdict
from booking.platform.postgres import SharedServer, primary
from booking.platform.settings import settings
from support.gateways import SimulatedGateway
from support.payers import HABITS, Answers, Pair, Payer, all_live, hold_for_all, wait_until_settled
from support.payment_proof import Phase, felt, killed_between_charge_and_record, wrongs
from support.shop import Shop
from support.step_processes import StepProcesses

pytestmark = pytest.mark.race

Audit = Callable[[], Verdict]
Firms = dict[str, SimulatedGateway]

_PAIRS = 50
_SINGLE = 1_000 - 2 * _PAIRS
_PHASE, _PHASE_S_MAX = 150, 0.6
_BLOW_AFTER, _BLOW_S_MAX = (20, 90), 2.0
"""Both in answers that people get; in seconds where they get none."""
_CUT_EVERY = 4
_KILLS_MIN = 30

_WELL = {"delay_ms": 0, "error_rate": 0.0, "mode": "ok"}
_MODES: dict[str, dict[str, object]] = {
    "ok": {},
    "slow": {"delay_ms": 600},
    "failing": {"error_rate": 0.5},
    "refuse": {"mode": "refuse"},
    "reset": {"mode": "reset"},
    "decline": {"mode": "decline"},
    "approve_then_hang": {"mode": "approve_then_hang"},
    "duplicate": {"mode": "duplicate"},
}
_FELT = {
    ("ok", "captured"),
    ("slow", "unknown"),
    ("failing", "unknown"),
    ("failing", "captured"),
    ("refuse", "not-sent"),
    ("reset", "unknown"),
    ("decline", "declined"),
    ("approve_then_hang", "unknown"),
    ("duplicate", "captured"),
}
"""What a firm must have answered in its modes, or the test has tested nothing."""

_CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and state = 'active'
  and query ~ '(_payment|tell_pending|cancel_hold|refund_reservation|finish_refund|next_check_at)'
order by random() limit 1
"""


class Storm:
    """Until its block ends, firms change their modes, processes are killed, connections to Postgres are cut."""

    def __init__(self, seed: int, firms: Firms, processes: StepProcesses, answers: Answers) -> None:
        self._seed, self._firms, self._processes, self._answers = seed, firms, processes, answers
        self._threads = ThreadPoolExecutor(2)
        self._doing: list[Future[None]] = []
        self.phases: list[Phase] = []
        self.kills: Counter[str] = Counter()
        self.cuts = 0

    def __enter__(self) -> "Storm":
        self._doing = [self._threads.submit(self._change_firms), self._threads.submit(self._strike)]
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.end()
        for doing in self._doing:
            doing.result()
        self._threads.shutdown()

    def _change_firms(self) -> None:
        modes = {name: self._shuffled_modes(f"{self._seed} {name}") for name in self._firms}
        go_on = True
        while go_on:
            now = {name: next(modes[name]) for name in self._firms}
            for name, firm in self._firms.items():
                firm.faults(**_WELL | _MODES[now[name]])
            from_s = time.time()
            go_on = self._answers.wait_for(_PHASE, _PHASE_S_MAX)
            self.phases += [Phase(name, mode, from_s, time.time()) for name, mode in now.items()]
        for firm in self._firms.values():
            firm.well()

    @staticmethod
    def _shuffled_modes(seed: str) -> Iterator[str]:
        """All of them in some order, again and again; a firm that is never well has nothing to lose."""
        chance, modes = random.Random(seed), [*_MODES, *["ok"] * 6]
        while True:
            chance.shuffle(modes)
            yield from modes

    def _strike(self) -> None:
        chance = random.Random(f"{self._seed} strikes")
        for blow in itertools.count(1):
            if not self._answers.wait_for(chance.randint(*_BLOW_AFTER), _BLOW_S_MAX):
                return
            if blow % _CUT_EVERY == 0:
                self.cuts += len(primary().rows(_CUT))
            else:
                self.kills[self._processes.kill_one(chance)] += 1


def test_each_is_charged_once_or_refunded_in_full(firms: Firms, audit: Audit, processes: StepProcesses) -> None:
    seed = int(os.environ.get("ENCORE_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"again with ENCORE_TEST_SEED={seed}")
    processes.start()
    database = SharedServer(settings().database_url, 4, writes=True)
    answers = Answers()
    singles, pairs = make_people(processes.url, answers, seed, database)
    payers = [*singles, *(payer for pair in pairs for payer in (pair.first, pair.rival))]
    lives = [payer.live for payer in singles] + [pair.live for pair in pairs]
    random.Random(seed).shuffle(lives)

    with Storm(seed, firms, processes, answers) as storm:
        all_live(lives)
    wait_until_settled()

    assert wrongs(payers, firms.values(), audit) == {}
    assert (have := felt(storm.phases, processes.asked()).keys()) >= _FELT, f"not felt: {_FELT - have}"
    assert storm.kills.total() >= _KILLS_MIN
    assert storm.cuts > 0
    assert killed_between_charge_and_record(payers, firms.values()) > 0


def make_people(url: str, answers: Answers, seed: int, database: SharedServer) -> tuple[list[Payer], list[Pair]]:
    """At a concert whose tickets can be given back and at one whose tickets cannot."""
    chance = random.Random(seed)
    shops = Shop.open(seats=1_000, wait=False), Shop.open(seats=1_000, wait=False)
    primary().rows("update concert set refund_until = null where id = :id", id=shops[1].concert_id)

    def payer(n: int, name: str, habit: str) -> Payer:
        return Payer(url, answers, shops[n % 2], f"{name}-{n}", habit, random.Random(chance.random()), n + 1)

    singles = [payer(n, "person", habit) for n, habit in zip(range(_SINGLE), itertools.cycle(HABITS), strict=False)]
    for n in range(2):
        hold_for_all(database, singles[n::2])
    pairs = [
        Pair(payer(n, "slow", "pay"), payer(n, "rival", "pay"), database) for n in range(_SINGLE, _SINGLE + _PAIRS)
    ]
    return singles, pairs
