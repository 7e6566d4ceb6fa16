"""scripts/up --watch: what it makes of a save, without a stack."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from encore_stack import watch
from encore_stack.instance import Instance
from encore_stack.stack import Stack, StackError
from encore_stack.watch import DEPLOY, GATEWAY, MIGRATE, Watch, alone, watched_files, work_after

APP = "functions/step3_concerts/app.py"


@pytest.mark.parametrize(
    ("name", "work"),
    [
        (APP, {GATEWAY}),
        ("layers/booking/booking/queue/lua/join.lua", {GATEWAY}),
        ("layers/booking/booking/seats/sql/functions/hold_seats.sql", {MIGRATE}),
        ("layers/booking/migrations/versions/0002_more.py", {MIGRATE}),
        ("template.yaml", {DEPLOY, GATEWAY}),
        ("layers/runtime/requirements.lock", {DEPLOY, GATEWAY}),
        ("localstack/fast_gateway/proxy.py", {GATEWAY}),
    ],
)
def test_what_has_to_follow_a_save(name: str, work: set[str]) -> None:
    assert work_after(Path(name)) == work


class Session:
    """A watch that ends when everything has been said that the test waits for."""

    def __init__(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.instance = Instance("watched", project)
        self.instance.run_dir.mkdir(parents=True)
        self.instance.log_dir.mkdir()
        (self.instance.run_dir / "hot-reload").touch()
        self.save(APP, "def handler(): pass")
        self.said: list[str] = []
        self.done: list[str] = []
        self.fault: Exception | None = None
        monkeypatch.setattr(watch, "_POLL_S", 0.01)
        monkeypatch.setattr(watch, "_QUIET_S", 0.02)
        monkeypatch.setattr(watch, "_say", self.said.append)
        stack = SimpleNamespace(instance=self.instance, supervisor=SimpleNamespace(is_running=lambda: True))
        self.watch = Watch(cast(Stack, stack), {kind: self._worker(kind) for kind in (MIGRATE, DEPLOY, GATEWAY)})

    def _worker(self, kind: str) -> Callable[[], None]:
        def work() -> None:
            self.done.append(kind)
            if self.fault:
                raise self.fault

        return work

    def save(self, name: str, text: str) -> None:
        path = self.instance.project_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def loaded(self, function: str, error: dict[str, Any] | None = None) -> None:
        event = {"at": time.time(), "function": f"encore-{function}", "seconds": 0.5, "first": False, "error": error}
        with (self.instance.log_dir / "reloads.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")

    def run_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5

        def is_hot(_: Instance) -> bool:
            assert time.monotonic() < deadline, (self.said, self.done)
            return not condition()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watch, "is_hot", is_hot)
            assert self.watch.run() == 0


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    return Session(tmp_path, monkeypatch)


def test_a_syntax_error_is_told_with_file_and_line_and_the_gateway_keeps_what_it_has(session: Session) -> None:
    session.save(APP, "x = 1\ndef handler(:\n")
    session.run_until(lambda: len(session.said) > 1)
    assert session.said[1].startswith(f"{APP}:2: SyntaxError: ")
    assert not session.done

    session.save(APP, "def handler(): return 1")
    session.run_until(lambda: bool(session.done))
    assert session.done == [GATEWAY]


def test_reloads_and_errors_are_told_by_function(session: Session) -> None:
    place = f'  File "{session.instance.project_dir / APP}", line 7, in <module>\n    import nowhere\n'
    error = {"errorType": "Runtime.ImportModuleError", "errorMessage": "No module", "stackTrace": [place]}
    session.loaded("step6_reserve")
    session.loaded("step3_concerts", error)
    session.loaded("step7_pay")

    session.run_until(lambda: len(session.said) == 2)

    assert session.said[0].startswith("reloaded step6_reserve, step7_pay in ")
    assert session.said[1].startswith("step3_concerts: every call fails until this is mended\n")
    assert f"{APP}:7: Runtime.ImportModuleError: No module\n" in session.said[1]
    assert "import nowhere" in session.said[1]


def test_work_that_fails_is_told_and_watching_goes_on(session: Session) -> None:
    session.fault = StackError("no such column")
    session.save("layers/booking/booking/seats/sql/functions/hold_seats.sql", "select 1")
    session.run_until(lambda: "no such column" in session.said)

    session.fault = None
    session.save("layers/booking/booking/seats/sql/functions/hold_seats.sql", "select 2")
    session.run_until(lambda: session.done == [MIGRATE, MIGRATE])


def test_a_template_that_cannot_be_deployed_leaves_the_gateway_alone(session: Session) -> None:
    session.fault = StackError("no such parameter")
    session.save("template.yaml", "Resources: {}")
    session.run_until(lambda: "no such parameter" in session.said)

    session.fault = None
    session.save("template.yaml", "Resources: {}\n")
    session.run_until(lambda: len(session.done) == 3)

    assert session.done == [DEPLOY, DEPLOY, GATEWAY]


def test_it_ends_when_something_else_is_deployed(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    (session.instance.run_dir / "hot-reload").unlink()

    assert session.watch.run() == 0
    assert "another scripts/up has deployed the packaged code" in capsys.readouterr().out


def test_saving_by_renaming_and_deleting_are_seen(tmp_path: Path) -> None:
    file = tmp_path / APP
    file.parent.mkdir(parents=True)
    file.write_text("1")
    before = watched_files(tmp_path)

    draft = file.with_name("draft.tmp")
    draft.write_text("2")
    draft.replace(file)
    renamed = watched_files(tmp_path)
    file.unlink()

    assert before != renamed
    assert set(renamed) == {str(file)}
    assert watched_files(tmp_path) == {}


def test_an_instance_is_watched_once(tmp_path: Path) -> None:
    instance = Instance("watched", tmp_path)

    with alone(instance), pytest.raises(StackError, match="is being watched by another"), alone(instance):
        pass
    with alone(instance):
        pass
