"""Signs of life: one thread shows them, however blocks follow each other and overlap."""

import threading
import time

import pytest

from encore_stack import progress
from support.waiting import wait_for

_INTERVAL_S = 0.05


@pytest.fixture(autouse=True)
def short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_ALIVE_S", _INTERVAL_S)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "signs of life"]


def test_short_blocks_leave_no_second_thread(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        with progress.alive("short"):
            assert len(threads()) == 1
    with progress.alive("long"):
        began_s = time.monotonic()
        time.sleep(5 * _INTERVAL_S)
        shown, lasted_s = capsys.readouterr().out.splitlines(), time.monotonic() - began_s

    assert 1 <= len(shown) <= lasted_s / _INTERVAL_S + 1
    assert all(line.split()[0] == "long" and line.endswith("s so far") for line in shown)
    wait_for(lambda: not threads(), every_s=0.001)


def test_of_overlapping_blocks_the_one_begun_last_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    def next_shown() -> str:
        wait_for(lambda: shown.extend(capsys.readouterr().out.splitlines()) or shown, every_s=0.001)
        return shown.pop().split()[0]

    with progress.alive("outer"):
        assert next_shown() == "outer"
        with progress.alive("inner"):
            assert next_shown() == "inner"
        capsys.readouterr()
        shown.clear()
        assert next_shown() == "outer"


def test_a_step_says_how_long_it_took_unless_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("good"):
        pass
    with pytest.raises(ValueError, match="bad"), progress.step("bad"):
        raise ValueError("bad")

    [line] = capsys.readouterr().out.splitlines()
    assert line.split() == ["good", "0.0", "s"]
