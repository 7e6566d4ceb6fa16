"""What scripts/gate and on_gate_command tell of a gate, of a change, and of a command that they cannot follow."""

import time
from typing import Any

import pytest
from msgspec import ValidationError

from booking.platform.telemetry import logger
from booking.queue.gate import GateChange
from encore_stack.commands.gate import as_text, run, told
from encore_stack.instance import PROJECT_DIR
from fast_gateway.functions import Context, load_handler

SETTINGS = {
    "change_id": 3,
    "epoch": 1,
    "state": "open",
    "capacity": 1000,
    "rate": 200.0,
    "paused": 0,
    "message": "",
    "opens_us": 0,
    "sold_out": 0,
}
LIVE = {
    "change_id": 3,
    "epoch": 1,
    "admitting": 1,
    "held_s": 0,
    "waiting": 4,
    "absent": 0,
    "inside": 2,
    "passes": 2,
    "full": 0,
    "full_pace": "",
    "eta_s": 20,
    "last_place": 1_795_575_291_752_650,
    "last_number": 1_795_575_291_752_650,
}


def gate(live: dict[str, Any] | None = None, **settings: object) -> dict[str, Any]:
    """A gate as ``show_gate`` answers it."""
    return {
        "concert_id": 5,
        "title": "Moonlight Tour",
        "started": True,
        "sales_open_at": "2026-11-24T02:00:00.000Z",
        "sales_closed_at": None,
        "line_mode": "fifo",
        "draw": None,
        "settings": SETTINGS | settings,
        "changes": [],
        "redis": "ok",
        "live": LIVE | (live or {}),
    }


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"  {name} "))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rate": 0.0}, "open, the rate is 0, lets nobody in"),
        ({"capacity": 0}, "open, the capacity is 0, lets nobody in"),
        ({"paused": 1}, "open, paused, lets nobody in"),
        ({"opens_us": (time.time() + 3600) * 1e6}, "open, the sale is not, lets nobody in"),
    ],
)
def test_a_line_that_lets_nobody_in_says_why(settings: dict[str, object], words: str) -> None:
    text = as_text(gate({"admitting": 0, "eta_s": -1}, **settings))

    assert line_of(text, "line").endswith(words)
    assert line_of(text, "pace") == "  pace       nobody is let in"


@pytest.mark.parametrize(
    ("rate", "words"), [(200.0, "200"), (200, "200"), (0.5, "0.5"), (0.001, "0.001"), (12345.678, "12,345.678")]
)
def test_a_rate_is_shown_as_people_write_it(rate: float, words: str) -> None:
    assert line_of(as_text(gate(rate=rate)), "rate") == f"  rate       {words} a second"
    assert f"rate {words}/s" in told("rate", 5, GateChange(SETTINGS | {"rate": rate}, False, True, 0, 0))


@pytest.mark.parametrize(
    ("eta_s", "words"),
    [(20, "about 20 s"), (119, "about 119 s"), (600, "about 10 min"), (9000, "about 2.5 h"), (2_588_408, "about 30 d")],
)
def test_a_wait_is_told_in_a_unit_that_people_can_grasp(eta_s: int, words: str) -> None:
    assert line_of(as_text(gate({"eta_s": eta_s})), "the last") == f"  the last   waits {words}"


def test_a_long_message_is_told_from_who_wrote_it() -> None:
    shown = gate()
    change = {"at": "2026-11-25T02:55:35.655Z", "action": "message", "by": "ann@desk", "reason": "message"}
    shown["changes"] = [change | {"capacity": 1, "rate": 1, "message": "We are back in ten minutes, please stay"}]

    assert as_text(shown).endswith("message 'We are back in ten minutes, please stay'  ann@desk")


def test_what_no_line_has_is_not_told_to_be_in_force() -> None:
    assert told("pause", 5, GateChange(SETTINGS, False, True, 0, 0)).startswith("in force now: capacity 1,000, ")
    recorded = told("pause", 5, GateChange(SETTINGS, False, False, 0, 0))

    assert recorded.startswith("recorded: capacity 1,000, ")
    assert "in force" not in recorded


def test_a_draw_that_is_opened_before_its_time_says_when_people_come_in() -> None:
    text = told("open", 5, GateChange(SETTINGS, True, True, 0, 301))

    assert "nobody is let in for 301 s" in text and "let in by it" not in text


def test_a_draw_says_until_when_it_collects_and_where_its_hash_is() -> None:
    text = told("draw", 5, GateChange(SETTINGS | {"opens_us": 1_798_164_000_000_000}, False, True, 0, 0))

    assert "people are collected until 2026-12-25T02:00:00.000Z and drawn then" in text
    assert "SHA-256" in text and "scripts/gate show 5" in text


def test_a_message_of_many_words_asks_for_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["message", "1", "Please", "hold", "on"])

    assert ended.value.code == 2
    assert "put a message of several words in quotes" in capsys.readouterr().err


def test_a_command_that_is_refused_is_logged_with_what_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = load_handler(
        "on_gate_command", PROJECT_DIR / "functions/on_gate_command/app.py", "handler", "encore-on_gate_command"
    )
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr(logger(), "error", lambda message, **fields: logged.append({"message": message, **fields}))
    event = {"concert_id": 1, "action": "restart", "by": "the responder"}

    with pytest.raises(ValidationError):
        handler(event, Context("on_gate_command", 10, 512, "request"))

    assert logged == [
        {"message": "gate command refused", "command": event, "reason": "Invalid enum value 'restart' - at `$.action`"}
    ]
