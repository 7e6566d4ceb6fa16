"""The proof that nobody is charged twice has a database and payment firms of its own: its audits see no more. So have
its negative controls, which leave wrong books behind."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from support.gateways import SimulatedGateway
from support.guards import Out, without
from support.step_processes import StepProcesses


@pytest.fixture(scope="package")
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("encore_one_charge")


@pytest.fixture(scope="package")
def gateways(make_gateways: Callable[[], dict[str, SimulatedGateway]]) -> dict[str, SimulatedGateway]:
    return make_gateways()


@pytest.fixture
def hurry(use_settings: Callable[..., None]) -> Iterator[None]:
    """What takes seconds and minutes in a sale takes tenths of seconds. The settling job asks a firm while step 7 may
    still be asking it, which must do no harm either."""
    use_settings(
        payment_deadline_s=2,
        payment_answer_s_max=1.5,
        payment_turn_s_min=1,
        gateway_connect_timeout_s=0.3,
        gateway_read_timeout_s=0.4,
        gateway_glance_timeout_s=0.2,
        payment_check_backoff_s_max=1,
        circuit_open_s=1,
        circuit_read_every_s=0.2,
    )
    with (
        without(Out("first_check_after", "5 seconds", "500 milliseconds")),
        without(Out("check_backoff", "(0.5 + random() / 2)", "(0.1 + random() / 2)")),
    ):
        yield


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
    hurry: None,
) -> Iterator[StepProcesses]:
    """The steps and loops; the test starts them."""
    if not started:
        started.append(running.enter_context(closing(StepProcesses(tmp_path_factory.mktemp("asked") / "asked"))))
    yield started[0]
    started[0].kill_all()
