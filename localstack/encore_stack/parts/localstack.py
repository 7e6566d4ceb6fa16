"""LocalStack in its own environment, started natively, behind a small runner that deploys again after a restart."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from encore_stack.instance import Instance, write_atomically
from encore_stack.parts.base import Part, PartError, Unhealthy, probe_http, python
from encore_stack.ports import HOST
from lambda_executor.encore_lambda_executor.patches import SWITCH as PATCHES
from lambda_executor.encore_lambda_executor.patches import UnknownPatch, chosen

_REDEPLOY_S = 120.0
_POLL_S = 0.1


class LocalStack(Part):
    name = "localstack"
    stop_wait_s = 20
    start_timeout_s = 90.0

    def command(self, instance: Instance) -> list[str]:
        return [python(instance), "-m", "encore_stack.localstack_runner"]

    def environment(self, instance: Instance) -> Mapping[str, str]:
        return {"ENCORE_INSTANCE": instance.name, PATCHES: _patches()}

    def probe(self, instance: Instance) -> None:
        body = probe_http(instance.ports[self.name], "/_localstack/health")
        try:
            json.loads(body)["services"]
        except (ValueError, KeyError) as error:
            raise Unhealthy("no LocalStack answers on its port") from error

    def when_healthy(self, instance: Instance) -> None:
        """Where its runner deploys, wait for that."""
        deadline = time.monotonic() + _REDEPLOY_S
        while redeploys(instance) and not deployed_api_url(instance):
            if time.monotonic() > deadline:
                raise PartError(f"not deployed again after {_REDEPLOY_S:.0f} s: see {instance.log_file(self.name)}")
            time.sleep(_POLL_S)


def redeploys(instance: Instance) -> bool:
    """Whether the runner deploys when LocalStack has started: from the first deployment on, until a new `up`."""
    return _redeploy_file(instance).exists()


def leave_deploying_to_up(instance: Instance) -> None:
    """scripts/up migrates the database before it deploys: the runner of a LocalStack that starts now must not."""
    _redeploy_file(instance).unlink(missing_ok=True)


def remember_deployment(instance: Instance, api_url: str) -> None:
    """From now on whatever restarts LocalStack deploys again."""
    write_atomically(_record_file(instance), json.dumps({"api_url": api_url}) + "\n")
    _redeploy_file(instance).touch()


def forget_deployment(instance: Instance) -> None:
    """A LocalStack that starts has nothing deployed."""
    _record_file(instance).unlink(missing_ok=True)


def deployed_api_url(instance: Instance) -> str | None:
    """The API's URL if the LocalStack that runs, or ran last, has been deployed to."""
    try:
        return str(json.loads(_record_file(instance).read_text())["api_url"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def is_hot(instance: Instance) -> bool:
    """Whether the functions run the files as they are saved, or archives of them."""
    return _hot_file(instance).exists()


def remember_hot(instance: Instance, hot: bool) -> None:
    """Which of the two the next deployment brings."""
    if hot:
        _hot_file(instance).touch()
    else:
        _hot_file(instance).unlink(missing_ok=True)


def _hot_file(instance: Instance) -> Path:
    return instance.run_dir / "hot-reload"


def _record_file(instance: Instance) -> Path:
    return instance.run_dir / "deployment.json"


def _redeploy_file(instance: Instance) -> Path:
    return instance.run_dir / "redeploy"


def localstack_environment(instance: Instance) -> dict[str, str]:
    """LocalStack's own settings: loopback, our executor, nothing written outside the instance's folder."""
    data = instance.data_dir("localstack")
    return {
        "GATEWAY_LISTEN": f"{HOST}:{instance.ports['localstack']}",
        "LOCALSTACK_HOST": f"{HOST}:{instance.ports['localstack']}",
        "GATEWAY_SERVER": "encore",  # ours: LocalStack's own server listens on 0.0.0.0 whatever it is told
        "OVERRIDE_IN_DOCKER": "0",  # else, inside any container, it writes to /var/lib/localstack
        "LAMBDA_RUNTIME_EXECUTOR": "encore",
        "LAMBDA_RETRY_BASE_DELAY": "2",  # asynchronous calls are tried again after seconds, not after a minute
        "ENCORE_FUNCTION_LOG_DIR": str(instance.log_dir / "functions"),
        "LS_LOG": "error",
        "LOG_LEVEL_OVERRIDES": "localstack.request=ERROR",  # else a line is made for each request, and thrown away
        "PERSISTENCE": "0",
        "EAGER_SERVICE_LOADING": "0",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DNS_ADDRESS": "0",
        "FILESYSTEM_ROOT": str(data / "files"),
        "LOCALSTACK_VOLUME_DIR": str(data / "volume"),
        "CONFIG_DIR": str(data / "config"),
        "XDG_CACHE_HOME": str(data / "cache"),
        "HOME": str(data / "home"),
        "TMPDIR": str(data / "tmp"),
        "PYTHONPATH": str(instance.project_dir / "localstack" / "lambda_executor"),  # whoever has installed the tools
        PATCHES: _patches(),
    }


def _patches() -> str:
    """Which changes that make LocalStack faster are on, as the caller's environment says. Raises PartError."""
    try:
        return ",".join(chosen(os.environ)) or "none"
    except UnknownPatch as error:
        raise PartError(str(error)) from error
