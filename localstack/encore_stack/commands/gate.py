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
from encore_stack.arguments import concert_id
from encore_stack.instance import Instance
from encore_stack.operators import operator_name
from encore_stack.process_settings import adopt_settings

_HELP = f"""\
Look at a concert's gate, and turn it while people wait.

  show               settings, people waiting and inside, speed, the newest changes
  capacity N         how many may be inside the shop, 0 to {CAPACITY_MAX:,}; 0 admits nobody, nobody is thrown out
  rate N             how many are let in a second, 0 to {RATE_PER_S_MAX:,}, also parts of one (0.5)
  pause, resume      let nobody in for now; go on
  message [TEXT]     what waiting people are told, at most {MESSAGE_LENGTH_MAX} characters; without TEXT nothing
  close              joins and polls get 503 with the message; places are kept, who is inside goes on
  open               open a closed line again; for a line that is open before its sale is: open the sale, now (a draw
                     lets people in once all whom it collected can have heard of it)
  draw               before the sale opens: collect people until then and draw their order (scripts/verify-draw)
  restart            begin a new epoch: everybody who waits is out and may join anew; needs --yes
"""


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 done, 1 no such concert, too late for a draw, or the database is away, 2 misused."""
    options = _options(arguments)
    if options.action == "show" and options.value is not None:
        print("error: show takes no value", file=sys.stderr)
        return 2
    if options.action == "restart" and not options.yes:
        print(
            f"error: restart throws everybody out who waits for concert {options.concert}; say --yes to do it",
            file=sys.stderr,
        )
        return 2
    adopt_settings(Instance.load_existing())
    try:
        if options.action == "show":
            return _show(options.concert, as_json=options.json)
        change = change_gate(options.concert, options.action, options.value, by=operator_name(), reason=options.reason)
    except UnusableGateCommand as refused:
        print(f"error: {refused.detail}", file=sys.stderr)
        return 2
    except DatabaseAway as fault:
        print(f"error: {fault}; is the stack up? see scripts/status", file=sys.stderr)
        return 1
    except Refusal as refused:
        print(f"error: {refused.detail or refused}", file=sys.stderr)
        return 1
    print(msgspec.json.encode(change).decode() if options.json else told(options.action, options.concert, change))
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
        f"  rate       {_rate(now['rate'])} a second",
        f"  message    {now['message'] or '-'}",
        f"  epoch      {now['epoch']}",
    ]
    if live:
        eta = "unknown, nobody is let in" if live["eta_s"] < 0 else f"about {_duration(live['eta_s'])}"
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
    is_open = _is_open(gate["settings"])
    mode = "first come, first served"
    if draw := gate["draw"]:
        mode = f"a draw by seed {draw['seed']}" if draw["seed"] else f"a draw, SHA-256 of its seed {draw['seed_hash']}"
    return f"{'open since' if is_open else 'opens'} {gate['sales_open_at']}; {mode}"


def _is_open(now: dict[str, Any]) -> bool:
    return bool(now["opens_us"] <= datetime.now(UTC).timestamp() * 1_000_000)


def _state(gate: dict[str, Any]) -> str:
    now, live = gate["settings"], gate["live"]
    if gate["redis"] == "away":
        return "Redis is away: joins and polls get 503, passes go on working"
    if live is None:
        return "not running: it begins with the next visitor" + (" (Redis has lost it)" if gate["started"] else "")
    words = [now["state"]]
    words += ["paused"] if now["paused"] else []
    words += ["sold out"] if now["sold_out"] else []
    words += [] if _is_open(now) else ["the sale is not"]
    words += [f"the {name} is 0" for name in ("capacity", "rate") if now[name] == 0]
    words += [f"waits {live['held_s']} s for people to come back"] if live["held_s"] else []
    words += ["lets people in" if live["admitting"] else "lets nobody in"]
    words += ["has not been told the newest change yet"] if live["change_id"] != now["change_id"] else []
    return ", ".join(words)


def _pace(now: dict[str, Any], live: dict[str, Any]) -> str:
    if not live["admitting"]:
        return "nobody is let in"
    if not live["full"]:
        return f"the gate's rate, {_rate(now['rate'])} a second: there is room inside"
    if not live["full_pace"]:
        return "as people go out: the shop is full, nothing is measured yet"
    return f"{live['full_pace']} people let in a second, measured: the shop is full"


def _phantoms(live: dict[str, Any]) -> str:
    unknown = live["inside"] - live["passes"]
    return f", {unknown:,} of them unknown people whom a lost Redis may have let in" if unknown else ""


def _moment(us: int) -> str:
    return datetime.fromtimestamp(us / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rate(rate_per_s: float) -> str:
    return f"{rate_per_s:,.3f}".rstrip("0").rstrip(".")


def _duration(seconds: int) -> str:
    for unit, seconds_each, digits in (("d", 86_400, 0), ("h", 3_600, 1), ("min", 60, 0)):
        if seconds >= 2 * seconds_each:
            return f"{seconds / seconds_each:.{digits}f} {unit}"
    return f"{seconds} s"


def _change(change: dict[str, Any]) -> str:
    message = f"'{change['message']}'" if change["message"] else "-"
    values = {"capacity": f"{change['capacity']:,}", "rate": _rate(change["rate"]), "message": message}
    what = f"{change['action']} {values.get(change['action'], '')}".rstrip()
    why = f": {change['reason']}" if change["reason"] not in (change["action"], "") else ""
    return f"  {change['at']}  {what:<20}  {change['by'] or 'the line itself'}{why}"


def told(action: str, concert_id: int, change: GateChange) -> str:
    """What became of a change, for people."""
    now = change.settings
    words = [f"capacity {now['capacity']:,}, rate {_rate(now['rate'])}/s, {now['state']}"]
    words += ["paused"] if now["paused"] else []
    words += [f"message '{now['message']}'"] if now["message"] else []
    lines = [("in force now: " if change.in_force else "recorded: ") + ", ".join(words) + f", epoch {now['epoch']}"]
    if change.sale_opened:
        lines.append("the sale opens in one second")
    if change.held_s:
        lines.append(f"nobody is let in for {change.held_s:,} s: so long it takes until all who wait have asked again")
    if action == "draw":
        lines.append(
            f"people are collected until {_moment(now['opens_us'])} and drawn then; the SHA-256 of the seed, to"
        )
        lines.append(f"be published before, is in scripts/gate show {concert_id} and GET /concerts/{concert_id}")
    if change.in_force and not change.held_s:
        lines.append(f"let in by it: {change.admitted:,}")
    elif not change.in_force:
        lines.append("no line is running, or Redis is away: it gets these settings when it is there again")
    return "\n".join(lines)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    options, more = parser.parse_known_args(arguments)
    if more:
        hint = "; put a message of several words in quotes" if options.action == "message" else ""
        parser.error(f"unrecognized arguments: {' '.join(more)}{hint}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gate",
        usage="scripts/gate ACTION CONCERT [VALUE] [--reason TEXT] [--json] [--yes]",
        description=_HELP,
        epilog="exit codes: 0 done, 1 no such concert, too late for a draw, or the database is away, 2 misused",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", metavar="ACTION", choices=["show", *ACTIONS], help="one of these")
    parser.add_argument("concert", metavar="CONCERT", type=concert_id, help="the concert's id")
    parser.add_argument("value", metavar="VALUE", nargs="?", help="of capacity, rate, message")
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept with the change")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--yes", action="store_true", help="do what throws people out")
    return parser
