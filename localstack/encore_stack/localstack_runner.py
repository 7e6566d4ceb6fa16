"""Runs LocalStack and, whenever it starts again, deploys: it keeps nothing, so a restart alone would leave it empty.

The supervisor runs this; SIGTERM ends both. The first deployment of an instance is left to scripts/up, which has the
database migrated by then.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from encore_stack.deployment.deploy import deploy_instance
from encore_stack.instance import Instance
from encore_stack.parts import Unhealthy, part_named
from encore_stack.parts.base import find_program
from encore_stack.parts.localstack import forget_deployment, localstack_environment, redeploys
from encore_stack.processes import end_strays

_STOP_S = 2.0
"""It has nothing to save: what it does for longer is waiting for its own threads."""
_POLL_S = 0.1
_LOGS = "ENCORE_FUNCTION_LOG_DIR"
_RETRY_MIN_S, _RETRY_MAX_S = 2.0, 30.0
_CATALOG = "service-catalog-*.dill"
_WRITTEN_S = 5.0


def main() -> int:
    instance = Instance.load()
    forget_deployment(instance)
    end_strays(instance, "localstack")  # an earlier one that was killed may have left functions behind
    localstack = start_localstack(instance)
    signal.signal(signal.SIGTERM, lambda *_: localstack.terminate())
    signal.signal(signal.SIGINT, lambda *_: localstack.terminate())
    if redeploys(instance):
        _deploy_when_ready(instance, localstack)
    exit_code = _wait(localstack)
    _keep_catalog(instance)
    return exit_code


def start_localstack(instance: Instance) -> "subprocess.Popen[bytes]":
    """LocalStack on the instance's port, with empty folders. It ends with the thread that calls this."""
    environment = _fresh_environment(instance)
    # If this process is killed outright, LocalStack must not stay behind on its port.
    python = str(instance.tools_dir / "localstack-venv" / "bin" / "python")
    command = [find_program("setpriv"), "--pdeathsig", "KILL", python, "-m", "localstack.runtime.main"]
    return subprocess.Popen(command, env=environment, cwd=instance.data_dir("localstack"))


def _fresh_environment(instance: Instance) -> dict[str, str]:
    """LocalStack keeps nothing: neither do its folders, its cache of plugins least of all."""
    _keep_catalog(instance)  # of one that was killed
    shutil.rmtree(instance.data_dir("localstack"), ignore_errors=True)
    own = localstack_environment(instance)
    for name in ("FILESYSTEM_ROOT", "LOCALSTACK_VOLUME_DIR", "CONFIG_DIR", "XDG_CACHE_HOME", "HOME", "TMPDIR", _LOGS):
        Path(own[name]).mkdir(parents=True, exist_ok=True)
    catalogs = _catalog_dir(instance)
    catalogs.mkdir(parents=True, exist_ok=True)
    for catalog in _kept_dir(instance).glob(_CATALOG):
        shutil.copy2(catalog, catalogs)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**inherited, **own, "PYTHONUNBUFFERED": "1"}


def _catalog_dir(instance: Instance) -> Path:
    return Path(localstack_environment(instance)["FILESYSTEM_ROOT"]) / "var" / "lib" / "localstack" / "cache"


def _kept_dir(instance: Instance) -> Path:
    return instance.tools_dir / "localstack-cache"


def _keep_catalog(instance: Instance) -> None:
    """Keep LocalStack's index of all AWS services for the next start of any instance: making it costs seconds of CPU.

    The file's name carries the versions that it was made from.
    """
    for catalog in _catalog_dir(instance).glob(_CATALOG):
        kept = _kept_dir(instance) / catalog.name
        # One that is being written right now may be half a one.
        if not kept.exists() and time.time() - catalog.stat().st_mtime > _WRITTEN_S:
            kept.parent.mkdir(parents=True, exist_ok=True)
            draft = kept.with_name(f".{kept.name}.{os.getpid()}")
            shutil.copy2(catalog, draft)
            draft.replace(kept)


def _deploy_when_ready(instance: Instance, localstack: "subprocess.Popen[bytes]") -> None:
    retry_s = _RETRY_MIN_S
    while localstack.poll() is None:
        try:
            part_named("localstack").probe(instance)
        except Unhealthy:
            time.sleep(_POLL_S)
            continue
        try:
            deploy_instance(instance, lambda text: print(text, flush=True))
            return
        except Exception:  # whatever it was: the log has it, and the next try may find the servers up again
            if localstack.poll() is not None:
                return
            traceback.print_exc()
            print(f"deploying again in {retry_s:.0f} s", flush=True)
            time.sleep(retry_s)
            retry_s = min(retry_s * 2, _RETRY_MAX_S)


def _wait(localstack: "subprocess.Popen[bytes]") -> int:
    """LocalStack's exit code. A LocalStack that was told to end gets a little time for it."""
    told = False

    def end(*_: object) -> None:
        nonlocal told
        told = True
        localstack.terminate()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    while not told:
        try:
            return localstack.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            continue
    try:
        return localstack.wait(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        localstack.kill()
        return localstack.wait()


if __name__ == "__main__":
    sys.exit(main())
