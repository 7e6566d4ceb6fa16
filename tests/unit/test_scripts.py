"""The verbs of scripts/: each explains itself, and says what is wrong with a wrong call."""

import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from encore_stack.instance import PROJECT_DIR
from support.scripts import call_verb, run_script

_VERBS = sorted(path.name for path in (PROJECT_DIR / "scripts").iterdir() if path.is_file())


@pytest.fixture(scope="module")
def run_verb() -> Iterator[Callable[[str, str], subprocess.CompletedProcess[str]]]:
    """What became of a verb that was told one option; all are told, on all cores, from when the first is asked for."""
    calls = [(verb, option) for option in ("--help", "--no-such-option") for verb in _VERBS]
    with ThreadPoolExecutor(os.cpu_count()) as cores:
        called = {call: cores.submit(run_script, *call) for call in calls}
        yield lambda verb, option: called[verb, option].result()
        cores.shutdown(cancel_futures=True)


@pytest.mark.parametrize("verb", _VERBS)
def test_every_verb_explains_itself(verb: str, run_verb: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_verb(verb, "--help")

    assert done.returncode == 0, done.stderr
    assert f"scripts/{verb}" in done.stdout
    assert "-h, --help" in done.stdout
    assert "exit codes: 0 " in " ".join(done.stdout.lower().split())


@pytest.mark.parametrize("verb", _VERBS)
def test_an_unknown_option_is_refused(verb: str, run_verb: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_verb(verb, "--no-such-option")

    assert done.returncode == 2
    assert "error" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("tour",),
        ("audit",),
        ("seed",),
        ("logs",),
        ("gate", "show", "1"),
        ("locks",),
        ("long-locks",),
        ("dead-letters", "list"),
        ("after-failover",),
        ("reconcile",),
        ("reads", "show", "1"),
    ],
    ids=lambda command: command[0],
)
def test_an_instance_that_is_not_there_is_no_success(command: tuple[str, ...]) -> None:
    done = call_verb(*command, ENCORE_INSTANCE="never-made")

    assert done.returncode == 2
    assert "there is no instance 'never-made'" in done.stderr
    assert not (PROJECT_DIR / ".stack" / "never-made").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("seed", "--concerts", "3", "--schedules", "10", "--seats", "100"), "cannot be shared evenly"),
        (("gate", "explode", "1"), "invalid choice: 'explode'"),
        (("gate", "show", "concert"), "'concert' is no concert's id"),
        (("gate", "show", "1", "2"), "show takes no value"),
        (("reads", "memory", "1"), "invalid choice: 'memory'"),
        (("reads", "database", "0"), "'0' is no concert's id"),
        (("reads", "database"), "the following arguments are required: CONCERT"),
        (("gate", "restart", "1"), "throws everybody out who waits for concert 1; say --yes"),
        (("locks", "everything"), "'everything' is not a whole number above 0"),
        (("locks", "--rows", "0"), "'0' is not a whole number above 0"),
        (("verify-draw", "Encore"), "'Encore' is no concert's id"),
        (("verify-draw", "1", "--seed-hash", "abc"), "'abc' is no SHA-256"),
        (("verify-draw", "1", "--show", "-1"), "'-1' is no number of people"),
        (("verify-draw", "1", "--user-ids"), "--people, which is missing"),
        (("long-locks", "--end", "psql"), "'psql' is no process's id"),
        (("long-locks", "--limit", "0"), "'0' is no number from 1 to 1,000"),
        (("dead-letters", "show", "x"), "'x' is no dead letter's id"),
        (("dead-letters", "redrive"), "one of the arguments ID --all is required"),
        (("dead-letters", "redrive", "--all", "--limit", "0"), "'0' is no number from 1 to 10,000"),
        (("dead-letters", "discard", "1"), "the following arguments are required: --reason"),
        (("dead-letters", "discard", "1", "--reason", " "), "must be 1 to 500 characters"),
        (("after-failover", "--since", "-5"), "'-5' is no number of seconds from 0 to 604,800"),
        (("after-failover", "--since", "99999999999"), "'99999999999' is no number of seconds from 0 to 604,800"),
        (("audit", "--settle", "soon"), "'soon' is no number of seconds from 0 to 3,600"),
        (("bench", "--partitions", "--line"), "--line: not allowed with argument --partitions"),
        (("bench", "--seats", "15000"), "--seats is for --partitions"),
    ],
)
def test_values_that_make_no_sense_are_refused(command: tuple[str, ...], words: str) -> None:
    done = call_verb(*command)

    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--parts", "nosuch"), "no part is called 'nosuch'"),
        (("--watch", "--parts", "redis"), "--watch needs the whole stack"),
        (("--brokers", "2"), "--brokers takes 1 or 3, not '2'"),
        (("--redis", "many"), "--redis takes single, split, sentinel or cluster, not 'many'"),
    ],
)
def test_up_refuses_before_it_installs_anything(arguments: tuple[str, ...], words: str) -> None:
    done = run_script("up", *arguments)

    assert done.returncode == 2
    assert words in done.stderr
