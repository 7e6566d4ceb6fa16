"""scripts/drill: which instance it may break, what it refuses, its exit codes; stack and run are stood in for."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from drills.harness import stage
from drills.harness.drill import Drill, all_drills
from drills.harness.stage import NotADrills, Topology, instance_for_drills
from encore_stack.commands import drill
from encore_stack.instance import Instance
from encore_stack.stack import StackError

SINGLE, CLUSTER = Topology(), Topology(redis="cluster")


@pytest.fixture
def behaviour(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[SimpleNamespace]:
    """Drills named a, b and c whose runs do as the test says; by default they pass. Notes what was done."""
    some = all_drills()[0]
    named = {"c": SINGLE, "a": CLUSTER, "b": SINGLE}
    known = [replace(some, name=name, topology=topology) for name, topology in named.items()]
    does = SimpleNamespace(done=[], failures={}, instance=Instance("drill", tmp_path), interrupt=False)

    def set_up(topology: Topology) -> Any:
        does.done.append(f"up {topology.redis}")
        return SimpleNamespace(instance=does.instance)

    def run_drill(_: Any, one: Drill, *, duration_s: int, **__: Any) -> Any:
        does.done.append(f"run {one.name} {duration_s}")
        if does.interrupt:
            raise KeyboardInterrupt
        return SimpleNamespace(failures=lambda: does.failures.get(one.name, []))

    monkeypatch.setenv("ENCORE_INSTANCE", "drill")
    monkeypatch.setattr(drill, "all_drills", lambda: known)
    monkeypatch.setattr(drill, "instance_for_drills", lambda: does.instance)
    monkeypatch.setattr(drill, "set_up", set_up)
    monkeypatch.setattr(drill, "run_drill", run_drill)
    monkeypatch.setattr(drill, "take_down", lambda: does.done.append("down"))
    does.duration_s = some.duration_s
    on_end = signal.getsignal(signal.SIGTERM)
    yield does
    signal.signal(signal.SIGTERM, on_end)


def test_a_drill_that_passes_ends_with_0_and_takes_its_instance_down(behaviour: SimpleNamespace) -> None:
    assert drill.run(["b"]) == 0
    assert behaviour.done == ["up single", f"run b {behaviour.duration_s}", "down"]


def test_a_drill_that_fails_ends_with_1(behaviour: SimpleNamespace) -> None:
    behaviour.failures = {"b": ["a bound"]}

    assert drill.run(["b"]) == 1
    assert behaviour.done[-1] == "down"


def test_keep_leaves_the_instance_up(behaviour: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert drill.run(["b", "--keep"]) == 0
    assert "down" not in behaviour.done
    assert "ENCORE_INSTANCE=drill scripts/status" in capsys.readouterr().out


def test_all_plays_everything_and_fails_with_any(
    behaviour: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviour.failures = {"a": ["a bound"]}

    assert drill.run(["all"]) == 1
    assert [done.split()[1] for done in behaviour.done if done.startswith("run")] == ["a", "c", "b"]
    assert "2 of 3 drills passed; failed: a" in capsys.readouterr().out


def test_interrupted_it_takes_the_instance_down_too(behaviour: SimpleNamespace) -> None:
    behaviour.interrupt = True

    assert drill.run(["b"]) == 130
    assert behaviour.done[-1] == "down"


def test_told_to_end_it_takes_the_instance_down_too(
    behaviour: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told_to_end(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)  # it arrives before

    monkeypatch.setattr(drill, "run_drill", told_to_end)

    assert drill.run(["b"]) == 130
    assert behaviour.done[-1] == "down"


def test_a_stack_that_does_not_come_up_is_taken_down(
    behaviour: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Topology) -> Any:
        raise StackError("postgres did not start")

    monkeypatch.setattr(drill, "set_up", broken)

    with pytest.raises(StackError):
        drill.run(["b"])
    assert behaviour.done == ["down"]


def test_a_longer_drill_is_stretched(behaviour: SimpleNamespace) -> None:
    assert drill.run(["b", "--duration", "500"]) == 0
    assert "run b 500" in behaviour.done


def test_the_beginning_of_names_plays_all_of_them(behaviour: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    drills = [replace(known, name=name) for known, name in zip(drill.all_drills(), ("a-b", "a", "ab"), strict=True)]
    monkeypatch.setattr(drill, "all_drills", lambda: drills)

    assert drill.run(["a", "--duration", "500"]) == 0
    assert sorted(done for done in behaviour.done if done.startswith("run ")) == ["run a 500", "run a-b 500"]


def test_two_drills_at_once_on_one_instance_are_refused(
    behaviour: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with drill._alone(behaviour.instance) as is_alone:
        assert is_alone
        assert drill.run(["b"]) == 1

    assert "another drill runs" in capsys.readouterr().err
    assert behaviour.done == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which drill? there are: c, a, b;"),
        (["--list", "nosuch"], "no drill is called 'nosuch'"),
        (["nosuch"], "no drill is called 'nosuch'; there are: c, a, b"),
        (["b", "--duration", "1"], "--duration must be from"),
        (["b", "--duration", "901"], "to 900 seconds"),
    ],
)
def test_a_wrong_call_ends_with_2(
    arguments: list[str], words: str, behaviour: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drill.run(arguments) == 2
    assert words in capsys.readouterr().err
    assert behaviour.done == []


def test_the_list_names_each_drill_with_what_breaks_what_must_hold_and_how_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert drill.run(["--list"]) == 0

    said = " ".join(capsys.readouterr().out.split())
    for one in all_drills():
        assert one.breaks in said
        assert f"takes {one.duration_s} s" in said
        for bound in one.bounds:
            assert str(bound) in said


def test_the_list_of_some_names_only_those(capsys: pytest.CaptureFixture[str]) -> None:
    assert drill.run(["--list", "gateway"]) == 0

    said = capsys.readouterr().out
    assert "gateway-down" in said
    assert "redis-wiped" not in said


# -- whose instance it may break --------------------------------------------------------------------------------------


@pytest.fixture
def exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., None]:
    """Makes an instance in another project folder, by scripts/up or by a drill."""
    load = Instance.load
    monkeypatch.setattr(stage.Instance, "load", lambda: load(project_dir=tmp_path))
    monkeypatch.delenv("ENCORE_INSTANCE", raising=False)

    def make(name: str, *, by_a_drill: bool) -> None:
        instance = Instance(name, tmp_path, ports={"redis": 1})
        instance.dir.mkdir(parents=True)
        instance.save_config()
        if by_a_drill:
            stage._marker(instance).write_text("{}")

    return make


def test_without_a_name_it_is_an_instance_of_its_own(exists: Callable[..., None]) -> None:
    exists("main", by_a_drill=False)

    assert instance_for_drills().name == "drill"


def test_one_that_a_drill_made_is_used_again(exists: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCORE_INSTANCE", "mine")
    exists("mine", by_a_drill=True)

    assert instance_for_drills().name == "mine"


@pytest.mark.parametrize("name", ["main", "mine"])
def test_one_that_somebody_works_on_is_refused(
    name: str, exists: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCORE_INSTANCE", name)
    exists(name, by_a_drill=False)

    with pytest.raises(NotADrills, match=f"'{name}' was not made for drills"):
        instance_for_drills()


def test_main_is_never_made_for_drills(exists: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCORE_INSTANCE", "main")

    with pytest.raises(NotADrills):
        instance_for_drills()


def test_the_records_outlive_the_instance(exists: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    exists("drill", by_a_drill=True)
    monkeypatch.setenv("ENCORE_INSTANCE", "drill")
    instance = instance_for_drills()
    (instance.dir / stage.RECORDS / "one").mkdir(parents=True)
    (instance.data_dir("redis")).mkdir(parents=True)
    monkeypatch.setattr(stage, "Stack", lambda _: SimpleNamespace(down=lambda: []))

    stage.take_down()

    assert [entry.name for entry in instance.dir.iterdir()] == [stage.RECORDS]
    assert not instance_for_drills().ports
