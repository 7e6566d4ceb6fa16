"""The background loops, called with their sample events as EventBridge calls them each minute."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from encore_stack.instance import PROJECT_DIR
from encore_stack.sample_events import Sample, event_from, outcome_of, samples_of
from fast_gateway.functions import Context, load_handler
from support.functions import FUNCTIONS

SAMPLES = [sample for name in FUNCTIONS if name.startswith("every_minute_") for sample in samples_of(PROJECT_DIR, name)]


@pytest.fixture(scope="module")
def empty_database_url(make_database: Callable[[str], str]) -> str:
    """The loops work on everything there is: what other tests have left must not be theirs."""
    return make_database("encore_loops")


def test_the_loops_lead_work_and_end(empty_database_url: str, use_settings: Callable[..., object]) -> None:
    """All at once: each runs for as long as it is told to."""
    use_settings(database_url=empty_database_url, loop_run_s=1)
    handlers = {name: _handler(name) for name in {sample.function for sample in SAMPLES}}

    def run(sample: Sample) -> Any:
        event = event_from(sample.text, lambda name, argument: pytest.fail("a schedule has no papers"))
        return handlers[sample.function](event, Context(sample.function, 75, 512, "request"))

    with ThreadPoolExecutor(len(SAMPLES)) as loops:
        reports = list(loops.map(run, SAMPLES))

    assert len(reports) >= 7
    for sample, report in zip(SAMPLES, reports, strict=True):
        assert outcome_of(report, is_error=False) == sample.outcome, sample.function
        assert report["led"] and report["ticks"] > 0 and report["faults"] == 0, f"{sample.function}: {report}"


def _handler(function: str) -> Callable[..., Any]:
    return load_handler(function, PROJECT_DIR / "functions" / function / "app.py", "handler", f"encore-{function}")
