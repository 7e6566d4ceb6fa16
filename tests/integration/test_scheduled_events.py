"""The background loops, called with their sample events as EventBridge calls them each minute."""

from collections.abc import Callable

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


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample.name for sample in SAMPLES])
def test_a_loop_leads_works_and_ends(
    sample: Sample, empty_database_url: str, use_settings: Callable[..., object]
) -> None:
    use_settings(database_url=empty_database_url, loop_run_s=1)
    file = PROJECT_DIR / "functions" / sample.function / "app.py"
    handler = load_handler(sample.function, file, "handler", f"encore-{sample.function}")

    event = event_from(sample.text, lambda name, argument: pytest.fail("a schedule has no papers"))
    report = handler(event, Context(sample.function, 75, 512, "request"))

    assert outcome_of(report, is_error=False) == sample.outcome
    assert report["led"] and report["ticks"] > 0 and report["faults"] == 0
