"""Every sample event of a step or a consumer, through Lambda's Invoke API: it has the outcome that its name says.

Those of the background loops run for a minute here; tests/integration/test_scheduled_events.py shortens that.
"""

import json
import subprocess
from collections.abc import Callable

import pytest

from encore_stack.instance import PROJECT_DIR, Instance
from encore_stack.invocation import NotInvoked, invoke
from encore_stack.papers import Papers
from encore_stack.sample_events import Sample, event_from, outcome_of, samples_of
from support.functions import FUNCTIONS

Script = Callable[..., subprocess.CompletedProcess[str]]

SAMPLES = [
    sample
    for function in FUNCTIONS
    if not function.startswith("every_minute_")
    for sample in samples_of(PROJECT_DIR, function)
]


@pytest.mark.parametrize("sample", SAMPLES, ids=[f"{sample.function}-{sample.name}" for sample in SAMPLES])
def test_a_sample_has_the_outcome_that_its_name_says(sample: Sample, instance: Instance) -> None:
    with Papers(instance.url("gateway")) as papers:  # faster than LocalStack, and the same line and shop
        event = event_from(sample.text, papers.fill)

    done = invoke(instance.url("localstack"), sample.function, event)

    assert outcome_of(done.answer, is_error=done.is_error) == sample.outcome, done.answer
    assert any("RequestId" in line for line in done.log_lines)
    if sample.outcome.isdecimal() and int(sample.outcome) >= 400:
        assert json.loads(done.answer["body"])["type"] == f"/problems/{sample.name.replace('_', '-')}"


def test_invoke_shows_the_answer_and_the_log(run_script: Script) -> None:
    done = run_script("invoke", "step6")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "held"
    assert "step6_reserve reserve: answered 201 after" in done.stderr
    assert "answered  POST /reservations  201" in done.stderr


def test_invoke_shows_an_error_as_the_function_raised_it(run_script: Script) -> None:
    done = run_script("invoke", "issue_tickets", "not_an_event")

    assert done.returncode == 1
    assert done.stdout == ""
    assert "BatchProcessingError: All records failed processing" in done.stderr
    assert 'File "booking/events/consumer.py"' in done.stderr
    assert done.stderr.count("BatchProcessingError:") == 1, "the log repeats the error"


def test_invoke_takes_events_of_ones_own(run_script: Script) -> None:
    done = run_script("invoke", "step3", '{"httpMethod": "GET"}')

    assert "step3_concerts: answered 500" in done.stderr  # Chalice's words for an event that is none of its own


def test_a_function_that_is_not_there_is_not_deployed(instance: Instance) -> None:
    with pytest.raises(NotInvoked, match="not deployed"):
        invoke(instance.url("localstack"), "step0_nothing", {})
