"""The whole of Encore as `scripts/up` brings it up: the deployed functions behind LocalStack, and the fast gateway."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import support.scripts
from encore_stack.instance import Instance


def on_test_stack(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    instance = os.environ.get("ENCORE_INSTANCE", "test")
    return support.scripts.run_script(verb, *arguments, timeout_s=120, ENCORE_INSTANCE=instance)


@pytest.fixture(scope="session")
def status() -> dict[str, Any]:
    """What `scripts/status --json` says of the test stack."""
    done = on_test_stack("status", "--json")
    if done.returncode:
        pytest.fail(
            f"the test stack is not up: run scripts/test, or ENCORE_INSTANCE=test scripts/up --no-tour\n{done.stdout}"
            f"{done.stderr}",
            pytrace=False,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def instance(status: dict[str, Any]) -> Instance:
    """The test stack's paths, ports and secrets."""
    return Instance.load(status["instance"])


@pytest.fixture(params=["api_url", "gateway_url"])
def http(request: pytest.FixtureRequest, status: dict[str, Any]) -> Iterator[httpx.Client]:
    """A client of the API: once through LocalStack's API Gateway, once through the fast gateway."""
    limits = httpx.Limits(max_connections=50)
    with httpx.Client(
        base_url=status[request.param].rstrip("/") + "/", timeout=60, limits=limits, trust_env=False
    ) as client:
        yield client


@pytest.fixture
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a verb of scripts/ against the test stack: ``run_script("audit", "--settle")``."""
    return on_test_stack
