"""Negative controls: without a guard against a second charge, people who pay as in the proof are charged wrongly."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from booking.operations.audit import Verdict
from booking.platform.postgres import primary
from support.gateways import SimulatedGateway
from support.guards import Out, without
from support.payers import Answers, Payer, all_live, hold_for_all, wait_until_settled
from support.payment_proof import refund_all, wrongs
from support.shop import Shop
from support.step_processes import StepProcesses

pytestmark = pytest.mark.race

Audit = Callable[[], Verdict]
Firms = dict[str, SimulatedGateway]


@pytest.fixture(scope="module")
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("encore_charged_wrongly")


@pytest.fixture(scope="module")
def gateways(make_gateways: Callable[[], Firms]) -> Firms:
    return make_gateways()


@pytest.fixture(autouse=True)
def put_right(processes: StepProcesses, firms: Firms) -> Iterator[None]:
    """Afterwards there is nobody who has paid, and no money at the firms."""
    yield
    processes.kill_all()
    for firm in firms.values():
        firm.well()
    refund_all(firms.values())
    primary().rows("truncate concert, reservation, payment, seat, seat_ledger, idempotency, outbox, admission cascade")


@dataclass(frozen=True)
class Control:
    """So many people with this habit pay while danal has these faults: all is well with the guard, and without it
    ``reported`` is found among what is wrong. ``guard``: a name in ``step_server.GUARDS``, or one of the database."""

    guard: str | Out
    habit: str
    people: int
    faults: dict[str, object]
    reported: frozenset[str]
    slow: float = 0.0


CONTROLS = [
    Control(
        "one key for all tries of a charge",
        "pay",
        20,
        {"error_rate": 0.5},
        frozenset({"I3", "money", "charged twice"}),
    ),
    Control(
        Out("settle_payment", "'captured' and v_payment.cancelling then", "'captured' and false then"),
        "second thoughts",
        60,
        {},
        frozenset({"I3", "money"}),
        slow=1.0,
    ),
    Control(
        "the firm is asked to cancel",
        "second thoughts",
        20,
        {"mode": "approve_then_hang"},
        frozenset({"I3", "money"}),
    ),
]


@pytest.mark.parametrize("control", CONTROLS, ids=["key", "cancelling", "net-cancel"])
def test_without_the_guard_somebody_is_charged_wrongly(
    control: Control, firms: Firms, audit: Audit, processes: StepProcesses
) -> None:
    firms["danal"].faults(**control.faults)
    processes.start(control.slow)
    assert wrongs(crowd_pays(control, processes.url), firms.values(), audit) == {}

    with ExitStack() as guard_out:
        if isinstance(control.guard, Out):
            guard_out.enter_context(without(control.guard))
        else:
            processes.start(control.slow, control.guard)
        found = wrongs(crowd_pays(control, processes.url), firms.values(), audit)
    assert found.keys() >= control.reported, f"the proof proves nothing: {found}"


def crowd_pays(control: Control, url: str) -> Sequence[Payer]:
    """They pay for tickets that cannot be given back, so that nothing hides what a cancelled payment leaves behind."""
    shop = Shop.open(seats=control.people, wait=False)
    primary().rows("update concert set refund_until = null where id = :id", id=shop.concert_id)
    crowd = [
        Payer(url, Answers(), shop, f"person-{n}", control.habit, random.Random(n), seat=n + 1)
        for n in range(control.people)
    ]
    hold_for_all(primary(), crowd)
    all_live([payer.live for payer in crowd])
    wait_until_settled()
    return crowd
