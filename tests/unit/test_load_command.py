"""scripts/load: what it refuses, and its exit code, with artillery and the audit stood in for."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from artillery.report import Audit
from artillery.thresholds import Threshold
from encore_stack.commands import load
from encore_stack.instance import PROJECT_DIR, Instance
from support.scripts import call_verb

RECORDED = Path(__file__).parent / "load" / "artillery.json"
SMOKE = ["smoke", "--target", "gateway"]


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A run whose parts do as the test says; by default all goes well."""
    behaviour = SimpleNamespace(artillery_exit=0, leaves_results=True, audit=Audit(0, "audit passed"), free=1_000)
    behaviour.bounds = [Threshold("buyers", "vusers.created", ">=", 1)]
    behaviour.installed = 0
    behaviour.instance = Instance("some", tmp_path, ports={"gateway": 1})

    def artillery(_: Instance, plan: Any) -> int:
        if behaviour.leaves_results:
            shutil.copy(RECORDED, plan.folder / "report.json")
        (plan.folder / "artillery.log").write_text("what artillery said\n")
        return int(behaviour.artillery_exit)

    def install() -> None:
        behaviour.installed += 1

    monkeypatch.setattr(load.Instance, "load_existing", lambda: behaviour.instance)
    monkeypatch.setattr(load, "_urls", lambda *_: [("gateway", "http://127.0.0.1:1")])
    monkeypatch.setattr(load, "_free_seats", lambda _: {1: behaviour.free})
    monkeypatch.setattr(load, "_install", install)
    monkeypatch.setattr(load, "_artillery", artillery)
    monkeypatch.setattr(load, "_audit", lambda: behaviour.audit)
    monkeypatch.setattr(load, "thresholds", lambda *_: behaviour.bounds)
    return behaviour


def test_a_run_that_missed_nothing_ends_with_0_and_the_reports_path(
    stack: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load.run(SMOKE) == 0

    page = stack.instance.project_dir / capsys.readouterr().out.splitlines()[-1].strip()
    assert page.read_text().startswith("<!doctype html>")
    assert {path.name for path in page.parent.iterdir()} >= {"report.html", "report.json", "audit.txt", "artillery.log"}


def test_a_missed_threshold_ends_with_1(stack: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    stack.bounds = [Threshold("buyers", "vusers.created", ">=", 61)]

    assert load.run(SMOKE) == 1
    assert "error: buyers: 60, must be ≥ 61" in capsys.readouterr().err


def test_a_failed_audit_ends_with_1(stack: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    stack.audit = Audit(1, "  I1  BROKEN\naudit FAILED")

    assert load.run(SMOKE) == 1
    said = capsys.readouterr()
    assert "error: the audit ended with exit code 1" in said.err
    assert "I1  BROKEN" in said.out


def test_artillerys_own_failure_ends_with_1(stack: SimpleNamespace) -> None:
    stack.artillery_exit = 11

    assert load.run(SMOKE) == 1


def test_no_results_end_with_1_and_artillerys_words(stack: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    stack.leaves_results = False

    assert load.run(SMOKE) == 1
    assert "what artillery said" in capsys.readouterr().err


def test_too_few_seats_end_with_1_before_anything_is_installed(
    stack: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.free = 3

    assert load.run(SMOKE) == 1
    assert "scripts/seed --full" in capsys.readouterr().err
    assert stack.installed == 0


def test_only_the_newest_runs_are_kept(stack: SimpleNamespace) -> None:
    folder = stack.instance.dir / "load"
    for day in range(1, 41):
        (folder / f"202001{day:02}T000000Z-smoke-gateway").mkdir(parents=True)

    load.run(SMOKE)

    kept = sorted(path.name for path in folder.iterdir())
    assert len(kept) == 30
    assert kept[0] == "20200112T000000Z-smoke-gateway"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "profile"),
        (("rush",), "invalid choice"),
        (("steps", "--users", "many"), "--users"),
        (("steps", "--users", "5001"), "--users must be from 1 to 5,000"),
        (("smoke", "--target", "aws"), "--target"),
        (("smoke",), "there is no instance 'never-made'"),
    ],
)
def test_a_wrong_call_ends_with_2(arguments: tuple[str, ...], words: str) -> None:
    done = call_verb("load", *arguments, ENCORE_INSTANCE="never-made")

    assert done.returncode == 2
    assert words in done.stderr
    assert not (PROJECT_DIR / ".stack" / "never-made").exists()
