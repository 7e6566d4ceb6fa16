"""scripts/status."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import zip_longest

from botocore.exceptions import BotoCoreError, ClientError

from booking.tickets.outbox import Backlog
from encore_stack.alarms import ALARM, NO_DATA, OK, Alarm, read_alarms
from encore_stack.instance import Instance
from encore_stack.open_work import OpenWork, read_open_work
from encore_stack.parts.localstack import deployed_api_url, is_hot
from encore_stack.stack import PartStatus, Stack

_HEADINGS = ("part", "state", "address", "pid", "health", "log")
_STATES = {OK: "ok", ALARM: "ALARM", NO_DATA: "no data yet,"}
_HOT = "hot: the functions run the files as they are saved (scripts/up packages them again)"
_PACKAGED = "packaged: the functions run what the last scripts/up has deployed"


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/status", description="Each part of the local stack.")
    parser.add_argument("--json", action="store_true", help="for machines")
    as_json = parser.parse_args(arguments).json
    instance = Instance.load_existing()
    parts = Stack(instance).status()
    localstack = next(part for part in parts if part.name == "localstack")
    api_url = deployed_api_url(instance) if localstack.health == "ok" else None
    gateway = next(part for part in parts if part.name == "gateway")
    gateway_url = instance.url("gateway") if gateway.port and gateway.health == "ok" else None
    work = _open_work(instance, parts)
    alarms = _alarms(instance) if api_url else None
    if as_json:
        print(_json(instance, api_url, gateway_url, parts, work, alarms))
    else:
        _print_table(instance, api_url, gateway_url, parts, work, alarms)
    return 0 if all(part.is_healthy for part in parts) and api_url else 1


def _open_work(instance: Instance, parts: Sequence[PartStatus]) -> OpenWork | None:
    """None where nobody can be asked: Postgres is away, or has no tables yet."""
    is_up = any(part.name == instance.postgres_primary and part.health == "ok" for part in parts)
    return read_open_work(instance) if is_up else None


def _alarms(instance: Instance) -> list[Alarm] | None:
    """None where LocalStack cannot be asked."""
    try:
        return read_alarms(instance)
    except (BotoCoreError, ClientError):
        return None


def _alarm_lines(alarms: Sequence[Alarm] | None) -> list[str]:
    if alarms is None:
        return ["not known: nothing is deployed that could be asked"]
    width = max((len(alarm.name) for alarm in alarms), default=0)
    return [f"{alarm.name:<{width}}  {_STATES.get(alarm.state, alarm.state)} since {alarm.since}" for alarm in alarms]


def _work_lines(work: OpenWork | None) -> list[tuple[str, str]]:
    if work is None:
        return [("events", "not known: the database cannot be asked")]
    firms = f"; not asked now: {', '.join(work.open_circuits)}" if work.open_circuits else ""
    letters = f"{work.dead_letters:,} wait: scripts/dead-letters list" if work.dead_letters else "none wait"
    return [
        ("events", _events(work.outbox)),
        ("payments", f"{f'{work.payments:,} pending or owed back' if work.payments else 'none open'}{firms}"),
        ("letters", letters),
    ]


def _events(waiting: Backlog) -> str:
    if not waiting.count:
        return "all published"
    aside = f", {waiting.set_aside} of them set aside" if waiting.set_aside else ""
    return f"{waiting.count:,} wait to be published{aside}, the oldest for {waiting.oldest_age_s:.1f} s"


def _json(
    instance: Instance,
    api_url: str | None,
    gateway_url: str | None,
    parts: Sequence[PartStatus],
    work: OpenWork | None,
    alarms: Sequence[Alarm] | None,
) -> str:
    shown = ("name", "host", "port", "pid", "health", "role", "log")
    rows = [{key: getattr(part, key) for key in shown} for part in parts]
    shape = {
        "instance": instance.name,
        "api_url": api_url,
        "gateway_url": gateway_url,
        "hot": is_hot(instance),
        **(asdict(work) if work else dict.fromkeys(field.name for field in fields(OpenWork))),
        "alarms": None if alarms is None else [asdict(alarm) for alarm in alarms],
        "brokers": None if instance.external_kafka else instance.broker_count,
        "parts": rows,
    }
    return json.dumps(shape, indent=2)


def _print_table(
    instance: Instance,
    api_url: str | None,
    gateway_url: str | None,
    parts: Sequence[PartStatus],
    work: OpenWork | None,
    alarms: Sequence[Alarm] | None,
) -> None:
    rows = [_HEADINGS, *(_row(instance, part) for part in parts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    print(f"instance {instance.name}")
    for row in rows:
        print("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"API      {api_url or _why_no_api(parts)}")
    print(f"gateway  {gateway_url or 'not running'}")
    if api_url:
        print(f"code     {_HOT if is_hot(instance) else _PACKAGED}")
    for title, line in zip_longest(["alarms"], _alarm_lines(alarms), fillvalue=""):
        print(f"{title:<9}{line}")
    for title, line in _work_lines(work):
        print(f"{title:<9}{line}")
    print(f"Kafka    {_brokers(instance)}")


def _brokers(instance: Instance) -> str:
    if instance.external_kafka:
        return "not ours"
    return "1 broker" if instance.broker_count == 1 else f"{instance.broker_count} brokers"


def _why_no_api(parts: Sequence[PartStatus]) -> str:
    health = next(part.health for part in parts if part.name == "localstack")
    if health == "held":
        return "held down: scripts/stack start localstack brings it back"
    return "not deployed: scripts/up deploys it" if health == "ok" else "LocalStack is not up: scripts/up starts it"


def _row(instance: Instance, part: PartStatus) -> tuple[str, ...]:
    address = f"{part.host}:{part.port}" if part.port else "-"
    if part.name == "kafka" and instance.external_kafka:
        address = instance.external_kafka
    log = part.log.removeprefix(f"{instance.project_dir}/")
    health = f"{part.health}, {part.role}" if part.role else part.health
    return (part.name, part.state, address, str(part.pid or "-"), health, log)
