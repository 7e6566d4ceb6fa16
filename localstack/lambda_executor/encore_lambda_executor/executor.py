"""LocalStack's view: a RuntimeExecutor per execution environment, light handles on one pool per function version."""

import base64
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

from localstack import config
from localstack.aws.api.lambda_ import TooManyRequestsException
from localstack.services.lambda_.invocation.lambda_models import FunctionVersion, InvocationResult, LayerVersion
from localstack.services.lambda_.invocation.runtime_executor import RuntimeExecutor

from .hot_reload import HotPool, ReloadLog
from .pool import ENVIRONMENTS_MAX, Call, FunctionPool, FunctionSpec, NoEnvironmentFree, Outcome

LOG = logging.getLogger(__name__)

UNUSED_LAYER_S_MAX = 7 * 24 * 3600
HOST = "127.0.0.1"
LOOP = "every_minute_"  # in the name of a function that works a whole minute, so that its runs overlap

_pools: dict[tuple[str, str], FunctionPool | HotPool] = {}
_retired_loops: dict[str, list[FunctionPool | HotPool]] = {}  # replaced versions, until a run of the new one begins
_pools_lock = threading.Lock()
_layers_lock = threading.Lock()


class EncoreRuntimeExecutor(RuntimeExecutor):  # type: ignore[misc]
    """LocalStack makes one per concurrent call; the processes are the pool's, which holds at most eight."""

    def __init__(self, id: str, function_version: FunctionVersion) -> None:
        super().__init__(id=id, function_version=function_version)
        self._pool: FunctionPool | HotPool | None = None
        self._log_stream_name = ""

    def start(self, env_vars: dict[str, Any]) -> None:
        # An error while importing belongs in the answer, not here: LocalStack would turn it into a 500 without a log.
        environment = {name: str(value) for name, value in env_vars.items()}
        self._log_stream_name = environment.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        self._pool = _pool_of(self.function_version, environment)

    def stop(self) -> None:
        """Nothing of its own to stop: the pool ends with the version."""

    def invoke(self, payload: dict[str, str]) -> InvocationResult:
        if self._pool is None:
            raise RuntimeError("invoked before it was started")
        request_id = payload["invoke-id"]
        call = Call(
            request_id=request_id,
            arn=payload["invoked-function-arn"],
            payload=payload["payload"].encode(),
            log_stream_name=self._log_stream_name,
            trace_id=payload["trace-id"],
        )
        try:
            outcome = self._pool.invoke(call)
        except NoEnvironmentFree:
            raise TooManyRequestsException(
                "Rate Exceeded.", Reason="ConcurrentInvocationLimitExceeded", Type="User"
            ) from None
        answer = outcome.payload
        if outcome.is_error and isinstance(self._pool, HotPool):
            answer = _shown_to_developer(call, outcome)
        return InvocationResult(request_id=request_id, payload=answer, is_error=outcome.is_error, logs=outcome.logs)

    def get_address(self) -> str:
        return HOST

    def get_endpoint_from_executor(self) -> str:
        return HOST

    def get_runtime_endpoint(self) -> str:
        return f"http://{HOST}:{config.GATEWAY_LISTEN[0].port}/_encore/unused"

    def get_logs(self) -> str:
        return "see the function's log file"

    @classmethod
    def prepare_version(cls, function_version: FunctionVersion) -> None:
        """Unzips code and layers."""
        if function_version.config.code:
            function_version.config.code.prepare_for_execution()
        for layer in function_version.config.layers:
            _unzipped_layer(layer)

    @classmethod
    def cleanup_version(cls, function_version: FunctionVersion) -> None:
        with _pools_lock:
            pool = _pools.pop(_key(function_version), None)
        if pool is not None:
            pool.close()
            if LOOP in pool.spec.name:
                _retire_loop(function_version.qualified_arn, pool)

    @classmethod
    def validate_environment(cls) -> bool:
        return True


def _key(function_version: FunctionVersion) -> tuple[str, str]:
    # The revision changes with code, configuration and environment: each gets processes of its own.
    return function_version.qualified_arn, str(function_version.config.internal_revision)


def _pool_of(function_version: FunctionVersion, environment: dict[str, str]) -> FunctionPool | HotPool:
    key = _key(function_version)
    with _pools_lock:
        pool = _pools.get(key)
        if pool is not None:
            return pool
        pool = _pools[key] = _new_pool(_spec(function_version, environment))
        retired = _retired_loops.pop(function_version.qualified_arn, [])
    for each in retired:
        each.cut_off()
    return pool


def _retire_loop(arn: str, pool: FunctionPool | HotPool) -> None:
    """Ends the old version's runs when the new one's first run begins, not before: somebody has to do the work, and
    not at their own end: the old code would lead for up to a minute more.

    Where two are under way, a leader and one that stands by, the function's reserved concurrency keeps the new one's
    first run out. They end now: LocalStack tries them again two seconds later, on the new code.
    """
    with _pools_lock:
        ends_now = pool.calls_under_way > 1 or any(each_arn == arn for each_arn, _ in _pools)
        if not ends_now:
            _retired_loops.setdefault(arn, []).append(pool)
    if ends_now:
        pool.cut_off()


def _new_pool(spec: FunctionSpec) -> FunctionPool | HotPool:
    if not spec.watched:
        return FunctionPool(spec)
    logs = os.environ.get("ENCORE_FUNCTION_LOG_DIR")
    return HotPool(spec, ReloadLog(Path(logs).parent / "reloads.jsonl" if logs else None), is_loop=LOOP in spec.name)


def _shown_to_developer(call: Call, outcome: Outcome) -> bytes:
    """API Gateway answers a function's error with 502 and two words, the reason being in the log alone. While code is
    reloaded, the one who reads the answer is the one who has just broken it: the error goes into its body."""
    try:
        event = json.loads(call.payload)
        came_through_api = isinstance(event, dict) and "httpMethod" in event and "requestContext" in event
    except ValueError:
        came_through_api = False
    if not came_through_api:
        return outcome.payload
    headers = {"Content-Type": "application/json"}
    return json.dumps({"statusCode": 502, "headers": headers, "body": outcome.payload.decode()}).encode()


def _spec(function_version: FunctionVersion, environment: dict[str, str]) -> FunctionSpec:
    function, settings = function_version.id, function_version.config
    code = str(settings.code.get_unzipped_code_location())
    path = [code]
    watched = [code] if settings.code.is_hot_reloading() else []
    for layer in settings.layers:
        root = _unzipped_layer(layer)
        folders = [root / "python/lib/python3.13/site-packages", root / "python"]
        if layer.code.is_hot_reloading():
            folders = [folder.resolve() for folder in folders]  # links: errors name the files that people edit
            watched.append(str(folders[-1]))
        path += map(str, folders)
    log_folder = os.environ.get("ENCORE_FUNCTION_LOG_DIR")
    return FunctionSpec(
        name=function.function_name,
        version=function.qualifier,
        handler=settings.handler,
        path=tuple(folder for folder in path if Path(folder).is_dir()),
        environment={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TMPDIR": tempfile.gettempdir(),
            **environment,
            "LAMBDA_TASK_ROOT": code,
            "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        },
        timeout_s=float(settings.timeout),
        memory_mb=int(settings.memory_size),
        watched=tuple(watched),
        log_file=Path(log_folder, f"{function.function_name}.log") if log_folder else None,
        environments_max=int(os.environ.get("ENCORE_FUNCTION_ENVIRONMENTS_MAX", ENVIRONMENTS_MAX)),
    )


def _unzipped_layer(layer: LayerVersion) -> Path:
    """The layer's folder, unzipped once per content: it outlives LocalStack, and so do its compiled modules."""
    if layer.code.is_hot_reloading():
        return Path(layer.code.get_unzipped_code_location())
    cache = Path(config.dirs.cache, "encore-layers")
    folder = cache / base64.b64decode(layer.code.code_sha256).hex()
    with _layers_lock:
        if not folder.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            _forget_unused_layers(cache)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                archive = Path(scratch, "layer.zip")
                with archive.open("wb") as file:
                    layer.code._download_archive_to_file(file)
                with zipfile.ZipFile(archive) as content:
                    content.extractall(Path(scratch, "layer"))
                Path(scratch, "layer").rename(folder)
        os.utime(folder)
    return folder


def _forget_unused_layers(cache: Path) -> None:
    for folder in cache.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > UNUSED_LAYER_S_MAX:
            LOG.info("removing layer %s, not used for a week", folder.name)
            shutil.rmtree(folder, ignore_errors=True)
