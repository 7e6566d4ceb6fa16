"""`scripts/gate`: look at a concert's gate and turn it while people wait."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from booking.platform.postgres import DatabaseAway
from booking.platform.problems import Refusal
from booking.queue.gate import (
    ACTIONS,
    CAPACITY_MAX,
    MESSAGE_LENGTH_MAX,
    RATE_PER_S_MAX,
    GateChange,
    UnusableGateCommand,
    change_gate,
    show_gate,
)
from encore_stack.operators import concert_id, operator_name, work_on_instance

_HELP = f"""\
Look at a concert's gate, and turn it while people wait.

  show               settings, people waiting and inside, speed, the newest changes
  capacity N         how many may be inside the shop, 0 to {CAPACITY_MAX:,}; 0 admits nobody, nobody is thrown out
  rate N             how many are let in a second, 0 to {RATE_PER_S_MAX:,}, also parts of one (0.5)
  pause, resume      let nobody in for now; go on
  message [TEXT]     what waiting people are told, at most {MESSAGE_LENGTH_MAX} characters; without TEXT nothing
  close              joins and polls get 503 with the message; places are kept, who is inside goes on
  open               open a closed line again; for a line that is open before its sale is: open the sale, now
  draw               before the sale opens: collect people until then and draw their order (scripts/verify-draw)
  restart            begin a new epoch: everybody who waits is out and may join anew; needs --yes
"""


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 done, 1 no such concert or the database is away, 2 misused."""
    options = _parser().parse_args(arguments)
    if options.action == "show" and options.value is not None:
        print("error: show takes no value", file=sys.stderr)
        return 2
    if options.action == "restart" and not options.yes:
        print(
            f"error: restart throws everybody out who waits for concert {options.concert}; say --yes to do it",
            file=sys.stderr,
        )
        return 2
    work_on_instance()
    try:
        if options.action == "show":
            return _show(options.concert, as_json=options.json)
        change = change_gate(options.concert, options.action, options.value, by=operator_name(), reason=options.reason)
    except UnusableGateCommand as refused:
        print(f"error: {options.action}: {refused.detail}", file=sys.stderr)
        return 2
    except DatabaseAway as fault:
        print(f"error: {fault}; is the stack up? see scripts/status", file=sys.stderr)
        return 1
    except Refusal as refused:
        print(f"error: {refused.detail or refused}", file=sys.stderr)
        return 1
    print(msgspec.json.encode(change).decode() if options.json else _told(change))
    return 0


def _show(concert_id: int, *, as_json: bool) -> int:
    gate = show_gate(concert_id)
    print(msgspec.json.format(msgspec.json.encode(gate), indent=2).decode() if as_json else as_text(gate))
    return 0


def as_text(gate: dict[str, Any]) -> str:
    """What ``show_gate`` knows, for people."""
    now, live = gate["settings"], gate["live"]
    lines = [
        f"concert {gate['concert_id']}  {gate['title']}",
        f"  sale       {_sale(gate)}",
        f"  line       {_state(gate)}",
        f"  capacity   {now['capacity']:,} inside at once",
        f"  rate       {now['rate']:,} a second",
        f"  message    {now['message'] or '-'}",
        f"  epoch      {now['epoch']}",
    ]
    if live:
        eta = "unknown, nobody is let in" if live["eta_s"] < 0 else f"about {live['eta_s']:,} s"
        lines += [
            f"  waiting    {live['waiting']:,}, and {live['absent']:,} absent who keep their place",
            f"  inside     {live['inside']:,}{_phantoms(live)}",
            f"  pace       {_pace(now, live)}",
            f"  the last   waits {eta}" if live["waiting"] else "  the last   nobody waits",
            f"  places     {_moment(live['last_place'])} is the latest given out",
        ]
    lines.append("changes, newest first")
    lines += [_change(change) for change in gate["changes"]] or ["  none: the gate is as it comes"]
    return "\n".join(lines)


def _sale(gate: dict[str, Any]) -> str:
    if gate["sales_closed_at"]:
        return f"closed since {gate['sales_closed_at']}"
    opens_us = gate["settings"]["opens_us"]
    is_open = opens_us <= datetime.now(UTC).timestamp() * 1_000_000
    mode = "first come, first served"
    if draw := gate["draw"]:
        mode = f"a draw by seed {draw['seed']}" if draw["seed"] else f"a draw, SHA-256 of its seed {draw['seed_hash']}"
    return f"{'open since' if is_open else 'opens'} {gate['sales_open_at']}; {mode}"


def _state(gate: dict[str, Any]) -> str:
    now, live = gate["settings"], gate["live"]
    if gate["redis"] == "away":
        return "Redis is away: joins and polls get 503, passes go on working"
    if live is None:
        return "not running: it begins with the next visitor" + (" (Redis has lost it)" if gate["started"] else "")
    words = [now["state"]]
    words += ["paused"] if now["paused"] else []
    words += ["sold out"] if now["sold_out"] else []
    words += [f"rebuilt, lets nobody in for {live['held_s']} s"] if live["held_s"] else []
    words += ["lets people in" if live["admitting"] else "lets nobody in"]
    words += ["has not been told the newest change yet"] if live["change_id"] != now["change_id"] else []
    return ", ".join(words)


def _pace(now: dict[str, Any], live: dict[str, Any]) -> str:
    if not live["full"]:
        return f"the gate's rate, {now['rate']:,} a second: there is room inside"
    if not live["full_pace"]:
        return "as people go out: the shop is full, nothing is measured yet"
    return f"{live['full_pace']} people let in a second, measured: the shop is full"


def _phantoms(live: dict[str, Any]) -> str:
    unknown = live["inside"] - live["passes"]
    return f", {unknown:,} of them unknown people whom a lost Redis may have let in" if unknown else ""


def _moment(us: int) -> str:
    return datetime.fromtimestamp(us / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _change(change: dict[str, Any]) -> str:
    values = {"capacity": change["capacity"], "rate": change["rate"], "message": change["message"] or "-"}
    what = f"{change['action']} {values.get(change['action'], '')}".rstrip()
    why = f": {change['reason']}" if change["reason"] not in (change["action"], "") else ""
    return f"  {change['at']}  {what:<20} {change['by'] or 'the line itself'}{why}"


def _told(change: GateChange) -> str:
    now = change.settings
    words = [f"capacity {now['capacity']:,}, rate {now['rate']:,}/s, {now['state']}"]
    words += ["paused"] if now["paused"] else []
    words += [f"message '{now['message']}'"] if now["message"] else []
    lines = ["in force now: " + ", ".join(words) + f", epoch {now['epoch']}"]
    if change.sale_opened:
        lines.append("the sale opens in one second")
    if change.in_force:
        lines.append(f"let in by it: {change.admitted:,}")
    else:
        lines.append("no line is running, or Redis is away: it gets these settings when it is there again")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gate",
        usage="scripts/gate ACTION CONCERT [VALUE] [--reason TEXT] [--json] [--yes]",
        description=_HELP,
        epilog="exit codes: 0 done, 1 no such concert or the database is away, 2 misused",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", metavar="ACTION", choices=["show", *ACTIONS], help="one of these")
    parser.add_argument("concert", metavar="CONCERT", type=concert_id, help="the concert's id")
    parser.add_argument("value", metavar="VALUE", nargs="?", help="of capacity, rate, message")
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept with the change")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--yes", action="store_true", help="do what throws people out")
    return parser
