"""A draw by the verbs: scripts/gate makes it and opens it, people come in, scripts/verify-draw checks it."""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from booking.platform.postgres import Server
from encore_stack.instance import Instance, function_environment
from support.waiting import wait_for

Script = Callable[..., subprocess.CompletedProcess[str]]
PEOPLE = 20


@pytest.fixture
def concert_id(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A concert of this test's own whose sale opens tomorrow."""
    for name, value in function_environment(instance).items():
        monkeypatch.setenv(name, value)
    concert_id = 1_000_000 + secrets.randbelow(1_000_000_000)
    with closing(Server(instance.database_url())) as server:
        server.rows(
            "insert into concert (id, title, artist, venue, sales_open_at)"
            " values (:id, 'The Draw', 'a', 'v', now() + interval '1 day')",
            id=concert_id,
        )
        yield concert_id
        server.rows("update concert set sales_closed_at = now() - interval '2 days' where id = :id", id=concert_id)


def test_a_draw_from_the_first_to_the_last(
    concert_id: int, run_script: Script, instance: Instance, tmp_path: Path
) -> None:
    concert = str(concert_id)
    assert run_script("verify-draw", concert).returncode == 2  # first come, first served
    assert run_script("gate", "draw", concert).returncode == 0
    shown = json.loads(run_script("gate", "show", concert, "--json").stdout)
    assert shown["draw"]["seed"] is None
    assert run_script("verify-draw", concert).returncode == 2  # not published yet

    users = [secrets.token_hex(16) for _ in range(PEOPLE)]
    with httpx.Client(base_url=f"{instance.url('gateway')}/", trust_env=False) as http:

        def join(user_id: str) -> httpx.Response:
            return http.post("queue/tokens", json={"concert_id": concert_id, "user_id": user_id})

        assert {join(user).status_code for user in users} == {201}
        opened = run_script("gate", "open", concert)
        assert "the sale opens in one second" in opened.stdout
        wait_for(lambda: {join(user).json()["state"] for user in users}, lambda states: states == {"admitted"})

    assert run_script("audit", "--settle").returncode == 0  # the record is complete now
    everybody = tmp_path / "people.txt"
    everybody.write_text("\n".join(users))
    for options in ((), ("--people", str(everybody), "--user-ids", "--seed-hash", shown["draw"]["seed_hash"])):
        done = run_script("verify-draw", concert, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"took part  {PEOPLE} people" in done.stdout
        assert "the record agrees" in done.stdout

    other_hash = run_script("verify-draw", concert, "--seed-hash", "00" * 32)
    assert other_hash.returncode == 1
    assert "the record DISAGREES in 1 point\n" in other_hash.stdout
    everybody.write_text("\n".join(users[1:]))
    assert run_script("verify-draw", concert, "--people", str(everybody), "--user-ids").returncode == 1


def test_a_list_that_cannot_be_read_is_misuse(run_script: Script, tmp_path: Path) -> None:
    assert "cannot be read" in run_script("verify-draw", "1", "--people", str(tmp_path / "none")).stderr
    nobody = tmp_path / "nobody.txt"
    nobody.write_text("not a person")
    done = run_script("verify-draw", "1", "--people", str(nobody))
    assert done.returncode == 2 and "is no person" in done.stderr
