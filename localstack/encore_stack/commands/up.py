"""scripts/up, once everything is installed: start, migrate, seed, deploy, and tour or watch."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from threading import Event

from encore_stack import progress
from encore_stack.deployment.code import code_digest
from encore_stack.deployment.deploy import deploy_instance
from encore_stack.deployment.template import TemplateError
from encore_stack.instance import (
    BROKERS,
    POSTGRES_SERVERS,
    REDIS_PARTS,
    REDIS_SERVERS,
    REPLICATIONS,
    Instance,
    function_environment,
)
from encore_stack.parts import PART_NAMES, part_named, with_needs
from encore_stack.parts.base import PartError, python
from encore_stack.parts.kafka import create_topics
from encore_stack.parts.localstack import deployed_api_url, leave_deploying_to_up
from encore_stack.parts.postgres import connected
from encore_stack.stack import Stack, StackError
from encore_stack.watch import DEPLOY, GATEWAY, MIGRATE, Watch, alone

_SERVERS = (*POSTGRES_SERVERS, *REDIS_PARTS, *BROKERS, "danal", "payco", "localstack")
_OPTIONAL = {*BROKERS[1:], *REDIS_PARTS}
"""Parts that an instance may well do without: nobody needs to be told."""
_AFTER_MIGRATING = ("poller", "gateway")
_POLL_S = 0.05
_TAIL_LINES = 20
_REASON_LINES = 5


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/up", description="Start the local stack.")
    parser.add_argument("--no-tour", action="store_true")
    parser.add_argument("--parts", default="")
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--brokers", type=int, choices=(1, 3))
    parser.add_argument("--redis", choices=tuple(REDIS_SERVERS))
    parser.add_argument("--postgres", choices=REPLICATIONS)
    options = parser.parse_args(arguments)
    wanted = [name for name in options.parts.split(",") if name]
    if unknown := [name for name in wanted if name not in PART_NAMES]:
        print(f"error: no part is called '{unknown[0]}'; the parts are: {' '.join(PART_NAMES)}", file=sys.stderr)
        return 2
    if options.watch and wanted:
        print("error: --watch needs the whole stack: leave out --parts", file=sys.stderr)
        return 2
    began = _began()
    instance = Instance.load()
    instance.choose_kafka(options.brokers)
    instance.replication = options.postgres or instance.replication
    wished = replace(instance, redis_topology=options.redis or instance.redis_topology)
    if left_out := [name for name in wanted if name in _OPTIONAL and part_named(name).absent(wished)]:
        print(f"error: no {left_out[0]} here: {part_named(left_out[0]).absent(wished)}", file=sys.stderr)
        return 2
    stack = Stack(instance)
    has_changed = stack.choose_redis(options.redis)
    print(f"instance {instance.name}: its data, logs and ports lie in {instance.dir}")
    if has_changed:
        progress.line(f"Redis is run as '{instance.redis_topology}' from now on, and starts empty")
    _tell_held(instance)
    if wanted:
        _start(stack, with_needs(wanted))
        print(f"up after {time.time() - began:.1f} s (only {', '.join(wanted)})")
        return 0
    if options.watch:
        with alone(instance):
            return _watch(stack, began)
    _tell_up(instance, _bring_up(stack), began)
    return 0 if options.no_tour else _tour(instance)


def _watch(stack: Stack, began: float) -> int:
    instance = stack.instance
    watch = Watch(
        stack,
        {
            MIGRATE: lambda: _migrate_in_process(instance),
            DEPLOY: lambda: _deploy(instance, hot=True),
            GATEWAY: lambda: _restart_gateway_of_older_code(stack),
        },
    )
    _tell_up(instance, _bring_up(stack, hot=True), began)
    return watch.run()


def _tell_up(instance: Instance, api_url: str, began: float) -> None:
    print(f"\nup after {time.time() - began:.1f} s")
    print(f"  API      {api_url}")
    print(f"  gateway  {instance.url('gateway')}   (the same functions without the emulator)")
    of_it = "" if instance.name == "main" else f"ENCORE_INSTANCE={instance.name} "
    print(f"  {of_it}scripts/status shows every part, {of_it}scripts/down stops them\n", flush=True)


def _bring_up(stack: Stack, *, hot: bool = False) -> str:
    """Everything, side by side where nothing speaks against it; returns the API's URL.

    The database is migrated and filled as soon as it is there, while slower servers start. Deploying waits for that
    and for LocalStack; the poller and the gateway start meanwhile.
    """
    instance = stack.instance
    if instance.external_kafka:
        _create_topics(instance)
    _stop_gateway_of_older_code(stack)
    _stop_poller_of_older_settings(stack)
    if not stack.is_running("localstack"):
        leave_deploying_to_up(instance)
    ready = {name: Event() for name in _SERVERS}
    with ThreadPoolExecutor(2) as threads:
        servers = threads.submit(_start, stack, _SERVERS, ready)
        _wait(ready[instance.postgres_primary], servers)
        _migrate_in_process(instance) if hot else _migrate(instance)
        _seed(instance)
        others = threads.submit(_start, stack, _AFTER_MIGRATING)
        _wait(ready["localstack"], servers)
        api_url = _deploy(instance, hot=hot)
        servers.result()
        others.result()
    return api_url


def _create_topics(instance: Instance) -> None:
    try:
        with progress.step(f"topics at {instance.external_kafka}"):
            create_topics(instance)
    except PartError as error:
        raise StackError(f"{error}\n  KAFKA_BOOTSTRAP_SERVERS names that cluster: is it up?") from error


def _stop_gateway_of_older_code(stack: Stack) -> None:
    """The gateway imports the functions once: new code needs new workers. It is started again with the other parts."""
    instance = stack.instance
    digest = code_digest(instance.project_dir)
    noted = instance.run_dir / "gateway.code"
    known = noted.read_text() if noted.exists() else digest
    if stack.is_running("gateway") and known != digest:
        stack.supervisor.stop_part("gateway")
    instance.run_dir.mkdir(parents=True, exist_ok=True)
    noted.write_text(digest)


def _stop_poller_of_older_settings(stack: Stack) -> None:
    """The poller reads its mappings once. It is started again with the other parts."""
    instance = stack.instance
    settings = f"{instance.topic_partitions} {(instance.project_dir / 'template.yaml').read_text()}"
    digest = sha256(settings.encode()).hexdigest()
    noted = instance.run_dir / "poller.settings"
    if stack.is_running("poller") and not (noted.exists() and noted.read_text() == digest):
        stack.supervisor.stop_part("poller")
    noted.write_text(digest)


def _restart_gateway_of_older_code(stack: Stack) -> None:
    """Unless a person holds it down, or it runs this code already."""
    if stack.instance.held_file("gateway").exists():
        return
    _stop_gateway_of_older_code(stack)
    if not stack.is_running("gateway"):
        with progress.step("restart the fast gateway on the new code"):
            stack.start("gateway")


def _wait(ready: Event, servers: "Future[None]") -> None:
    """Until the part is ready. Raises what its start raised."""
    while not ready.wait(_POLL_S):
        if servers.done():
            servers.result()
            return


def _began() -> float:
    """When the person pressed return, in seconds since the epoch."""
    told = os.environ.get("ENCORE_UP_STARTED_MS", "")
    return int(told) / 1000 if told.isdigit() else time.time()


def _tell_held(instance: Instance) -> None:
    for name in PART_NAMES:
        if instance.held_file(name).exists():
            progress.line(f"{name} was held down: starting it again")


def _start(stack: Stack, names: Sequence[str], ready: Mapping[str, Event] | None = None) -> None:
    absent = {name: reason for name in names if (reason := part_named(name).absent(stack.instance))}
    for name in absent.keys() - _OPTIONAL:
        progress.line(f"{name}: skipped", absent[name])
    present = [name for name in names if name not in absent]
    before = dict(stack.instance.ports)

    def on_ready(name: str, took_s: float) -> None:
        if name in names:
            _tell_ready(stack.instance, before, name, took_s)
        if ready and name in ready:
            ready[name].set()

    with progress.alive("start " + ", ".join(present)):
        stack.up(names, on_ready=on_ready)


def _tell_ready(instance: Instance, before: dict[str, int], name: str, took_s: float) -> None:
    port = instance.ports.get(name)
    moved = f"  (port {before[name]} is taken by another process)" if before.get(name, port) != port else ""
    progress.line(f"{name:<12} {f'127.0.0.1:{port}' if port else ''}", f"{took_s:.1f} s{moved}")


def _migrate(instance: Instance) -> None:
    _run(instance, "migrate the database", [python(instance), "-m", "booking.platform.migrate"])


def _migrate_in_process(instance: Instance) -> None:
    """The same without the seconds in which a new process imports Alembic: who watches waits after each save."""
    from booking.platform.migrate import migrate

    try:
        with progress.step("migrate the database"):
            migrate(instance.database_url(instance.postgres_primary))
    except Exception as error:  # Postgres' reason, or Python's where a revision is broken
        words = str(error).replace(f"{instance.project_dir}/", "").splitlines()[:_REASON_LINES]
        tail = "\n".join(f"    {line}" for line in words)
        raise StackError(f"could not migrate the database ({type(error).__name__}):\n{tail}") from error


def _seed(instance: Instance) -> None:
    script = instance.project_dir / "scripts" / "seed"
    with connected(instance, instance.postgres_primary) as connection:
        is_seeded = connection.run("select exists (select 1 from concert)")[0][0]
    if not is_seeded:
        _run(instance, "load the first data set", [str(script)])


def _deploy(instance: Instance, *, hot: bool) -> str:
    """A LocalStack that is new has nothing; one that runs already takes over what changed."""
    lines: list[str] = []
    title = "deploy again" if deployed_api_url(instance) else "deploy"
    how = "template.yaml for reloading" if hot else "template.yaml"
    try:
        with progress.step(f"{title} {how}"):
            return deploy_instance(instance, lines.append, hot=hot)
    except TemplateError as error:
        raise StackError(f"{error}: nothing was deployed") from error
    except Exception as error:  # a layer or LocalStack itself: the person needs the reason, not the trace
        told = "\n".join(f"    {line}" for line in [*lines, *str(error).splitlines()][-_TAIL_LINES:])
        log = instance.log_file("localstack")
        words = f"the deployment failed ({type(error).__name__}):\n{told}\n  LocalStack's log: {log}"
        raise StackError(words) from error


def _tour(instance: Instance) -> int:
    script = instance.project_dir / "scripts" / "tour"
    return subprocess.run([str(script)], check=False, env=_environment(instance)).returncode


def _run(instance: Instance, title: str, command: list[str]) -> None:
    """A tool whose words matter only when it fails. Raises StackError with its last lines."""
    with progress.step(title):
        environment, both = _environment(instance), subprocess.STDOUT
        done = subprocess.run(command, check=False, env=environment, stdout=subprocess.PIPE, stderr=both, text=True)
        if done.returncode:
            tail = "\n".join(f"    {line}" for line in done.stdout.splitlines()[-_TAIL_LINES:])
            raise StackError(f"could not {title} (exit code {done.returncode}); its last lines:\n{tail}")


def _environment(instance: Instance) -> dict[str, str]:
    return {**os.environ, **function_environment(instance), "ENCORE_INSTANCE": instance.name}
