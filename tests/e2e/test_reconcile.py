"""A charge of a commit that was lost, on the deployed stack: the operator's verb finds it and sends it back."""

import json
import subprocess
import uuid
from collections.abc import Callable

import httpx

from encore_stack.instance import Instance


def test_the_verb_finds_what_no_payment_accounts_for_and_sends_it_back(
    instance: Instance, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    key = str(uuid.uuid4())
    order = {"key": key, "order_id": str(uuid.uuid4()), "amount": 7_000, "currency": "KRW", "method": "card"}
    httpx.post(f"{instance.url('payco')}/v1/payments", json=order, trust_env=False).raise_for_status()

    def state(*options: str) -> list[str]:
        done = run_script("reconcile", "--json", *options)
        assert done.returncode in (0, 1), done.stderr
        return [each["state"] for each in json.loads(done.stdout)["differences"] if each["key"] == key]

    assert state() == ["left"]
    assert f"payco: 7,000 KRW charged under {key}" in run_script("reconcile").stdout
    assert state("--heal") == ["healed"]
    assert state() == []
