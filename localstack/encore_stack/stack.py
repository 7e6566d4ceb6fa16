"""The stack of one instance: start, hold and watch its parts. The verbs in scripts/ and the tests use it alike."""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from aiokafka.errors import KafkaError

from encore_stack import kafka_replicas
from encore_stack.instance import BROKERS, POSTGRES_SERVERS, REDIS_PARTS, SENTINELS, BadInstance, Instance
from encore_stack.parts import PART_NAMES, PARTS, Part, PartError, Unhealthy, part_named, postgres, with_needs
from encore_stack.ports import DEFAULT_PORTS, HOST, PortClaims, choose_ports, port_owner
from encore_stack.processes import end_strays, find_strays, is_alive
from encore_stack.supervisor import FATAL, RUNNING, STOPPED, Supervisor

_POLL_S = 0.05
_LOOK_S_MAX = 1.0
"""One look at a part counts for at most this much of the time that it has to become healthy."""
_LOG_TAIL_LINES = 15
_STARTS_MAX = 3
"""A part that ends this often before it was healthy once is not going to be."""
_MOVED_S_MAX = 60.0
_STOP_FIRST = ("poller", "gateway", "localstack", *SENTINELS)
"""These work on the others, or watch them: they end before those."""

Ready = Callable[[str, float], None]


class StackError(Exception):
    """A part did not start or stop; the message has its last log lines and what to do."""


@dataclass(frozen=True)
class PartStatus:
    """`health` is `ok`, `held`, `stopped` or what is wrong; `role` what the part is among its peers."""

    name: str
    state: str
    host: str | None
    port: int | None
    pid: int | None
    health: str
    log: str
    role: str | None = None

    @property
    def is_healthy(self) -> bool:
        return self.health == "ok"


class Stack:
    """All parts of one instance. Ports are chosen and kept at the first `up`."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.supervisor = Supervisor(instance)
        self._claims = PortClaims()

    # -- starting --

    def choose_redis(self, topology: str | None) -> bool:
        """As ``Instance.choose_redis``. Raises BadInstance while Redis runs in another way."""
        before = self.instance.redis_topology
        if topology not in (None, before) and self.running() & set(REDIS_PARTS):
            raise BadInstance(
                f"instance '{self.instance.name}' runs Redis as '{before}': scripts/down first, then"
                f" scripts/up --redis {topology} (Redis then starts empty, and the line is restored from Postgres)"
            )
        return self.instance.choose_redis(topology)

    def up(self, parts: Sequence[str] | None = None, on_ready: Ready = lambda name, took_s: None) -> list[str]:
        """Start the named parts (all by default) and those they need, side by side; return when all are healthy.

        Held parts are started too. `on_ready` is told each part and its seconds. Returns the names of the parts that
        this call started. Raises StackError, PortTaken.
        """
        names = with_needs(list(parts)) if parts is not None else list(PART_NAMES)
        with self.locked():
            self.configure()
            present = [part_named(name) for name in names if not part_named(name).absent(self.instance)]
            return self._start_all(present, on_ready)

    def configure(self) -> None:
        """Ports, secrets, folders and the supervisor, ready for parts to start. Raises PortTaken, StackError."""
        instance = self.instance
        instance.make_dirs()
        instance.secrets()
        processes = self.supervisor.processes()
        if not processes and not self.supervisor.is_running():
            end_strays(instance)
        in_use = {name for name, process in processes.items() if process.state not in (STOPPED, FATAL, "EXITED")}
        in_use |= {name for name in instance.port_names if port_owner(name) in in_use}
        self._claims.release()
        before = dict(instance.ports)
        instance.ports = choose_ports(
            before, in_use, self._claims, use_defaults=instance.name == "main", names=instance.port_names
        )
        instance.save_config()
        self.supervisor.configure(part for part in PARTS if not part.absent(instance))
        if not self.supervisor.is_running():
            self.supervisor.start()

    def _start_all(self, parts: Sequence[Part], on_ready: Ready) -> list[str]:
        done = {part.name: Event() for part in parts}
        running = self.running()
        failed = Event()
        started: list[str] = []

        def start(part: Part) -> None:
            try:
                for needed in part.waits_for(self.instance):
                    while needed in done and not done[needed].wait(_POLL_S):
                        if failed.is_set():
                            return
                began = time.monotonic()
                if self._start_and_wait(part, running, failed):
                    started.append(part.name)
                done[part.name].set()
                on_ready(part.name, time.monotonic() - began)
            except BaseException:
                failed.set()
                raise

        try:
            with ThreadPoolExecutor(max(1, len(parts))) as threads:
                outcomes = [threads.submit(start, part) for part in parts]
            for outcome in outcomes:
                outcome.result()
        finally:
            self._claims.release()
        return started

    def _start_and_wait(self, part: Part, running: frozenset[str], failed: Event) -> bool:
        """Whether it had to be started."""
        process = self.supervisor.processes().get(part.name)
        self.instance.held_file(part.name).unlink(missing_ok=True)
        # The supervisor may not have noticed yet that it has been killed.
        must_start = process is None or process.state not in (RUNNING, "STARTING") or not is_alive(process.pid)
        if must_start:
            self.supervisor.stop_part(part.name)  # or it goes on trying with what was wrong
            try:
                part.prepare(self.instance)
                part.take_role(self.instance, running - {part.name})
            except PartError as error:
                raise StackError(f"{error}\n{part.advice(self.instance)}") from error
            self._start_process(part)
        try:
            self.wait_healthy(part.name, part.start_timeout_s, failed)
        except StackError:
            if must_start:
                self.supervisor.stop_part(part.name)
            raise
        try:
            part.when_healthy(self.instance)
        except (PartError, Unhealthy) as error:
            raise StackError(f"{part.name}: {error}\n{part.advice(self.instance)}") from error
        return must_start

    def _start_process(self, part: Part) -> None:
        log = self.instance.log_file(part.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        self.supervisor.start_part(part.name)

    def wait_healthy(self, name: str, timeout_s: float, give_up: Event | None = None) -> None:
        """Returns when the part is healthy. Raises StackError when it cannot start or the time is over.

        Time in which nothing answers, the supervisor neither, counts for little: a machine that stood still for a
        minute (its disk writing what an installation has left) must not end a start that takes two seconds.
        """
        part = part_named(name)
        waited_s, looked = 0.0, time.monotonic()
        reason, pids = "it has not answered yet", set[int]()
        while waited_s < timeout_s and not (give_up and give_up.is_set()):
            process = self.supervisor.processes().get(name)
            if process is not None and process.pid:
                pids.add(process.pid)
            if process is None or process.state in (FATAL, "UNKNOWN") or len(pids) > _STARTS_MAX:
                raise StackError(self._why_not(part, "it ends again and again"))
            if process.pid:
                try:
                    # A stranger on the port must not pass for ours.
                    part.probe(self.instance)
                    return
                except Unhealthy as error:
                    reason = str(error) or reason
            time.sleep(_POLL_S)
            now = time.monotonic()
            waited_s, looked = waited_s + min(now - looked, _LOOK_S_MAX), now
        raise StackError(self._why_not(part, f"not healthy after {timeout_s:.0f} s ({reason})"))

    def _why_not(self, part: Part, what: str) -> str:
        log = self.instance.log_file(part.name)
        lines = log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:] if log.exists() else []
        tail = "\n".join(f"    {line}" for line in lines) or "    (its log is empty)"
        return (
            f"{part.name} did not start: {what}. Its last log lines:\n{tail}\n"
            f"  the whole log: {log}\n  what to do: {part.advice(self.instance)}"
        )

    # -- one part --

    def stop(self, name: str) -> None:
        """Hold a part down until `start` or `up`. Raises KeyError, StackError."""
        part = self._present(name)
        held = self.instance.held_file(part.name)
        held.parent.mkdir(parents=True, exist_ok=True)
        held.touch()
        self.supervisor.stop_part(part.name)

    def start(self, name: str) -> None:
        """Bring one part back and wait until it is healthy. Raises KeyError, StackError."""
        part = self._present(name)
        with self.locked():
            if not self.supervisor.is_running():
                raise StackError("the stack is not running: scripts/up starts it")
            self._start_and_wait(part, self.running(), Event())

    def promote(self, name: str) -> str:
        """Make the replica the primary; returns the name of the one before, which is ended first and held down.

        ``start`` or ``up`` bring that one back, as a replica. Ended cleanly it hands over everything; one that does not
        answer is killed, and what it had not sent is lost. Raises KeyError, StackError.
        """
        self._present(name)
        if name not in POSTGRES_SERVERS:
            raise StackError(f"{name} has no role to change: {' and '.join(POSTGRES_SERVERS)} have")
        with self.locked():
            before = self.instance.postgres_primary
            try:
                postgres.check_promotable(self.instance, name)
                self.instance.held_file(before).touch()
                self.instance.held_file(name).unlink(missing_ok=True)
                self._end_primary(before)
                postgres.replace_primary(self.instance, before, name)
                postgres.settle_promotion(self.instance, name)
            except (PartError, Unhealthy) as error:
                raise StackError(f"{name}: {error}") from error
        return before

    def isolate(self, name: str) -> int:
        """Move all leaders and replicas off a Kafka broker that is slow but alive; how many partitions it had.

        It stays in the cluster with nothing to do until `rejoin`. Raises KeyError, StackError.
        """
        self._among_brokers(name)
        others = [other for other in self.instance.brokers if other != name]
        node = BROKERS.index(name) + 1
        with self.locked(), _kafka_faults(name):
            return kafka_replicas.move_off(self.instance.addresses(others), node, _MOVED_S_MAX)

    def rejoin(self, name: str) -> int:
        """Give a broker its replicas back and wait until they are in sync; how many partitions lacked one.

        Raises KeyError, StackError.
        """
        self._among_brokers(name)
        nodes = [BROKERS.index(broker) + 1 for broker in self.instance.brokers]
        with self.locked(), _kafka_faults(name):
            return kafka_replicas.move_back(self.instance.kafka_bootstrap_servers, nodes, _MOVED_S_MAX)

    def _among_brokers(self, name: str) -> None:
        self._present(name)
        if name not in BROKERS:
            raise StackError(f"{name} has no replicas to move: {', '.join(self.instance.brokers)} have")
        if self.instance.broker_count == 1:
            raise StackError(f"{name} is the only broker: there is none to move its partitions to")

    def _end_primary(self, name: str) -> None:
        """Cleanly where it answers, else at once: nothing of it may go on answering."""
        try:
            part_named(name).probe(self.instance)
        except Unhealthy:
            postgres.kill(self.instance, name)
        self.supervisor.stop_part(name)
        postgres.kill(self.instance, name)

    def _present(self, name: str) -> Part:
        part = part_named(name)
        if reason := part.absent(self.instance):
            raise StackError(f"{name} is not part of this instance: {reason}")
        return part

    # -- stopping --

    def down(self, wipe: bool = False) -> list[str]:
        """Stop everything and make sure that nothing is left; with `wipe` forget the instance's files.

        Returns the command lines of processes that had to be ended by force.
        """
        if not self.instance.dir.exists():
            return []
        with self.locked():
            running = self.running()
            self._stop_all([name for name in running if name in _STOP_FIRST])
            primary = self.instance.postgres_primary
            self._stop_all([name for name in running if name not in _STOP_FIRST and name != primary])
            self._stop_all([name for name in running if name == primary])
            self.supervisor.shut_down()
            forced = end_strays(self.instance)
            socket = self.instance.supervisor_socket
            if socket.parent != self.instance.run_dir:
                shutil.rmtree(socket.parent, ignore_errors=True)
            if left := find_strays(self.instance):
                raise StackError("these processes could not be ended: " + ", ".join(map(str, left)))
            if wipe:
                shutil.rmtree(self.instance.dir)
        return forced

    def _stop_all(self, names: Sequence[str]) -> None:
        if names:
            with ThreadPoolExecutor(len(names)) as threads:
                list(threads.map(self.supervisor.stop_part, names))

    # -- looking --

    def is_running(self, name: str) -> bool:
        """Whether the part has a process."""
        return name in self.running()

    def running(self) -> frozenset[str]:
        """The parts that have a process."""
        return frozenset(name for name, process in self.supervisor.processes().items() if process.pid)

    def status(self) -> list[PartStatus]:
        """Every part with the outcome of a real probe, asked side by side. A Kafka that is not ours is probed too."""
        processes = self.supervisor.processes()
        shown = [part for part in PARTS if part.name == "kafka" or not part.absent(self.instance)]

        def look(part: Part) -> PartStatus:
            process = processes.get(part.name)
            state = process.state if process else STOPPED
            port = part.port(self.instance)
            health = self._health(part, state if process else None)
            pid = process.pid or None if process else None
            log = str(self.instance.log_file(part.name))
            role = part.role(self.instance) if pid and health == "ok" else None
            return PartStatus(part.name, state.lower(), HOST if port else None, port, pid, health, log, role)

        with ThreadPoolExecutor(len(shown)) as threads:
            return list(threads.map(look, shown))

    def _health(self, part: Part, state: str | None) -> str:
        if state is None and not (part.name == "kafka" and self.instance.external_kafka):
            return "stopped"
        if self.instance.held_file(part.name).exists():
            return "held"
        if state not in (None, RUNNING, "STARTING"):
            return "stopped" if state == STOPPED else str(state).lower()
        try:
            part.probe(self.instance)
        except Unhealthy as error:
            return str(error) or "unhealthy"
        return "ok"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One caller at a time changes what runs."""
        self.instance.dir.parent.mkdir(parents=True, exist_ok=True)
        with (self.instance.dir.parent / f".{self.instance.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@contextmanager
def _kafka_faults(name: str) -> Iterator[None]:
    """Faults of the brokers as StackError."""
    try:
        yield
    except (kafka_replicas.CannotMove, KafkaError, OSError, TimeoutError) as error:
        raise StackError(f"{name}: {error or type(error).__name__}") from error


__all__ = ["DEFAULT_PORTS", "PartStatus", "Stack", "StackError"]
