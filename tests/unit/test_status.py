"""What scripts/status says of the stack as a whole."""

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from booking.tickets.outbox import Backlog
from encore_stack.alarms import Alarm
from encore_stack.commands import status
from encore_stack.instance import Instance
from encore_stack.open_work import OpenWork
from encore_stack.parts.localstack import remember_deployment, remember_hot
from encore_stack.stack import PartStatus, Stack

_PARTS = [PartStatus(name, "running", "127.0.0.1", 4566, 7, "ok", f"{name}.log") for name in ("localstack", "gateway")]


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    instance = Instance("main", tmp_path, {"localstack": 4566, "gateway": 8000})
    instance.run_dir.mkdir(parents=True)
    remember_deployment(instance, "http://127.0.0.1:4566/api")
    monkeypatch.setattr(Instance, "load_existing", lambda: instance)
    monkeypatch.setattr(Stack, "status", lambda _: _PARTS)
    monkeypatch.setattr(status, "read_alarms", away)
    return instance


def away(_: Instance) -> list[Alarm]:
    raise EndpointConnectionError(endpoint_url="http://127.0.0.1:4566")


def shown(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """As JSON and as text."""
    assert status.run(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert status.run([]) == 0
    return found, capsys.readouterr().out


def test_whether_the_functions_run_what_is_saved(instance: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    remember_hot(instance, True)
    found, text = shown(capsys)
    assert found["hot"] is True
    assert "code     hot: " in text

    remember_hot(instance, False)
    found, text = shown(capsys)
    assert found["hot"] is False
    assert "code     packaged: " in text


@pytest.mark.parametrize(
    ("count", "external", "brokers", "line"),
    [(1, None, 1, "1 broker"), (3, None, 3, "3 brokers"), (1, "kafka.example:9092", None, "not ours")],
)
def test_how_many_brokers_there_are(
    instance: Instance,
    capsys: pytest.CaptureFixture[str],
    count: int,
    external: str | None,
    brokers: int | None,
    line: str,
) -> None:
    instance.broker_count, instance.external_kafka = count, external

    found, text = shown(capsys)

    assert found["brokers"] == brokers
    assert text.splitlines()[-1] == f"Kafka    {line}"


def test_the_alarms_and_since_when_they_are_as_they_are(
    instance: Instance, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, text = shown(capsys)
    assert found["alarms"] is None
    assert "alarms   not known" in text

    at = "2026-11-25T12:00:00Z"
    alarms = [Alarm("encore-a-lag", "OK", at), Alarm("encore-bcd-lag", "ALARM", at)]
    monkeypatch.setattr(status, "read_alarms", lambda _: alarms)
    found, text = shown(capsys)
    assert found["alarms"][1] == {"name": "encore-bcd-lag", "state": "ALARM", "since": at}
    assert f"alarms   encore-a-lag    ok since {at}\n         encore-bcd-lag  ALARM since {at}\n" in text


def test_what_is_open_in_the_sale(
    instance: Instance, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, text = shown(capsys)
    assert (found["outbox"], found["payments"], found["dead_letters"], found["open_circuits"]) == (None,) * 4
    assert "events   not known" in text

    work = OpenWork(Backlog(1_200, 3.21, 2), payments=7, dead_letters=4, open_circuits=["danal charges"])
    monkeypatch.setattr(status, "_open_work", lambda *_: work)
    found, text = shown(capsys)
    assert found["outbox"] == {"count": 1_200, "oldest_age_s": 3.21, "set_aside": 2}
    assert (found["payments"], found["dead_letters"], found["open_circuits"]) == (7, 4, ["danal charges"])
    assert "events   1,200 wait to be published, 2 of them set aside, the oldest for 3.2 s\n" in text
    assert "payments 7 pending or owed back; not asked now: danal charges\n" in text
    assert "letters  4 wait: scripts/dead-letters list\n" in text

    monkeypatch.setattr(status, "_open_work", lambda *_: OpenWork(Backlog(0, 0, 0), 0, 0, []))
    _, text = shown(capsys)
    assert "events   all published\npayments none open\nletters  none wait\n" in text
