"""The proof that nobody is charged twice has a database and payment firms of its own: its audits see no more."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from booking.platform.postgres import primary
from support.gateways import SimulatedGateway
from support.guards import Out, without
from support.payment_proof import refund_all
from support.step_processes import StepProcesses


@pytest.fixture(scope="package")
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("encore_one_charge")


@pytest.fixture(scope="package")
def gateways(make_gateways: Callable[[], dict[str, SimulatedGateway]]) -> dict[str, SimulatedGateway]:
    return make_gateways()


@pytest.fixture(scope="package")
def running() -> Iterator[ExitStack]:
    with ExitStack() as running:
        yield running


@pytest.fixture(scope="package")
def started() -> list[StepProcesses]:
    """Their server stays up. Whoever asks first starts it: only then the environment is a test's."""
    return []


@pytest.fixture
def processes(
    running: ExitStack,
    started: list[StepProcesses],
    tmp_path_factory: pytest.TempPathFactory,
    firms: dict[str, SimulatedGateway],
) -> Iterator[StepProcesses]:
    """The steps and loops; the test starts them. Afterwards there is nobody who has paid, and no money at the firms."""
    if not started:
        started.append(running.enter_context(closing(StepProcesses(tmp_path_factory.mktemp("asked") / "asked"))))
    yield started[0]
    started[0].kill_all()
    for firm in firms.values():
        firm.well()
    refund_all(firms.values())
    primary().rows("truncate concert, reservation, payment, seat, seat_ledger, idempotency, outbox, admission cascade")


@pytest.fixture
def hurry(use_settings: Callable[..., None]) -> Iterator[None]:
    """What takes seconds and minutes in a sale takes tenths of seconds. The settling job asks a firm while step 7 may
    still be asking it, which must do no harm either."""
    use_settings(
        payment_deadline_s=2,
        payment_answer_s_max=1.2,
        payment_turn_s_min=1,
        gateway_connect_timeout_s=0.3,
        gateway_read_timeout_s=0.3,
        gateway_glance_timeout_s=0.2,
        payment_check_backoff_s_max=1,
        circuit_open_s=1,
        circuit_read_every_s=0.2,
    )
    with without(Out("first_check_after", "5 seconds", "500 milliseconds")):
        yield
