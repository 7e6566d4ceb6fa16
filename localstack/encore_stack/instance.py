"""An instance of the local stack: where its files lie, which ports it has, its secrets, its functions' environment."""

import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from encore_stack.ports import DEFAULT_PORTS, HOST, port_owner

PROJECT_DIR = Path(__file__).resolve().parents[2]
TOPIC_PARTITIONS = 12
"""Of each topic, unless ENCORE_TOPIC_PARTITIONS says otherwise. A topic that has more keeps them."""

BROKERS = ("kafka", "kafka2", "kafka3")
"""The parts that are Kafka brokers; an instance has the first one or all three."""

POSTGRES_SERVERS = ("postgres", "postgres2")
"""The parts that are Postgres servers, by names that say nothing of roles: one is the primary, the other its replica,
and a failover leaves it the other way round."""

REPLICATIONS = ("async", "sync")
"""Whether a commit waits until the replica has it on its disk."""

REDIS_SERVERS: Mapping[str, tuple[str, ...]] = {
    "single": ("redis",),
    "split": ("redis", "redis_locks", "redis_cache"),
    "sentinel": ("redis", "redis2", "redis3"),
    "cluster": ("redis", "redis2", "redis3", "redis4", "redis5", "redis6"),
}
"""How Redis is run, and the parts that are its servers then: one for everything; one each for the line, the locks and
the cache; a master and two replicas watched by sentinels; a cluster of three masters with a replica each."""

FAILING_OVER = ("sentinel", "cluster")
"""The ways in which servers have replicas, one of which takes a lost master's place."""

SENTINELS = ("sentinel", "sentinel2", "sentinel3")
"""The parts that watch the servers of ``sentinel`` and agree on which of them is the master."""

SENTINEL_SERVICE = "encore"
"""What the sentinels call their master."""

REDIS_PARTS = (*dict.fromkeys(name for servers in REDIS_SERVERS.values() for name in servers), *SENTINELS)
"""Every part that is Redis in one of these ways."""

MARKER = "ENCORE_STACK_DIR"
"""Environment variable of every supervised process: names the instance's folder, so that strays can be found."""

PART_MARKER = "ENCORE_STACK_PART"
"""Environment variable of every process of a part: the part's name."""

_UNIX_SOCKET_PATH_MAX = 100
_TOPIC_PARTITIONS_MAX = 200
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")


class BadInstance(Exception):
    """The instance cannot have that name, or be what it is asked to be."""


@dataclass
class Instance:
    """One stack of this clone, `main` unless named. Making the object touches no file."""

    name: str
    project_dir: Path = PROJECT_DIR
    ports: dict[str, int] = field(default_factory=dict)
    external_kafka: str | None = None
    """Bootstrap servers of a Kafka that is not ours."""
    broker_count: int = 1
    """Kafka brokers of our own: 1 or 3."""
    redis_topology: str = "single"
    """How Redis is run: a key of ``REDIS_SERVERS``."""
    replication: str = "async"
    """How Postgres replicates: one of ``REPLICATIONS``."""
    topic_partitions: int = TOPIC_PARTITIONS
    """Of each Kafka topic; the poller's invocations at once rise with it."""

    @classmethod
    def load_existing(cls) -> "Instance":
        """As ``load``, for verbs that look at what ``scripts/up`` has made. Raises BadInstance where it has not."""
        instance = cls.load()
        if not instance.ports:
            raise BadInstance(f"there is no instance '{instance.name}' here: scripts/up makes it")
        return instance

    @classmethod
    def load(cls, name: str | None = None, project_dir: Path = PROJECT_DIR) -> "Instance":
        """The named instance, else the one in ENCORE_INSTANCE, else `main`, with the ports it had.

        Raises BadInstance.
        """
        name = name or os.environ.get("ENCORE_INSTANCE") or "main"
        if not _NAME.fullmatch(name) or name == "tools":
            raise BadInstance(f"ENCORE_INSTANCE must be lower case letters, digits, - or _ and not 'tools': {name!r}")
        instance = cls(name, project_dir)
        config = _read_json(instance.config_file)
        instance.ports = dict(config.get("ports", {}))
        instance.external_kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or config.get("external_kafka")
        instance.broker_count = int(config.get("brokers", 1))
        instance.redis_topology = str(config.get("redis", "single"))
        instance.replication = str(config.get("replication", "async"))
        instance.topic_partitions = _topic_partitions(int(config.get("topic_partitions", TOPIC_PARTITIONS)))
        return instance

    def choose_kafka(self, broker_count: int | None = None) -> None:
        """The Kafka from the next start on: KAFKA_BOOTSTRAP_SERVERS, else this many brokers of our own (1 or 3), or as
        many as before. Raises BadInstance where that cannot be.

        Kafka writes the number into its data: replicas of topics, voters of its quorum. What the brokers hold is not
        carried over, so a change is refused as soon as there is data.
        """
        self.external_kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or None
        count = self.broker_count if broker_count is None else broker_count
        if self.external_kafka and broker_count:
            raise BadInstance(
                f"--brokers counts brokers of our own, and KAFKA_BOOTSTRAP_SERVERS={self.external_kafka} names others:"
                " leave one of the two out"
            )
        if count != self.broker_count and any((self.data_dir(name) / "log").exists() for name in BROKERS):
            raise BadInstance(
                f"instance '{self.name}' has data of {_brokers(self.broker_count)}, which {_brokers(count)} cannot take"
                " over: scripts/down --wipe first (it forgets all of the instance's data), or another ENCORE_INSTANCE"
            )
        self.broker_count = count

    def choose_redis(self, topology: str | None) -> bool:
        """How Redis is run from the next start on, or as before; whether that is a change. Its parts must not run.

        A change forgets what Redis holds. It only sheds load: the line is restored from Postgres and from its people's
        tokens, and left where it is it would come back, long out of date, with the next change.
        """
        if topology in (None, self.redis_topology):
            return False
        for name in REDIS_PARTS:
            shutil.rmtree(self.data_dir(name), ignore_errors=True)
        self.redis_topology = str(topology)
        return True

    # -- paths --

    @property
    def tools_dir(self) -> Path:
        return self.project_dir / ".stack" / "tools"

    @property
    def dir(self) -> Path:
        return self.project_dir / ".stack" / self.name

    @property
    def config_file(self) -> Path:
        return self.dir / "config.json"

    @property
    def secrets_file(self) -> Path:
        return self.dir / "secrets.json"

    @property
    def run_dir(self) -> Path:
        return self.dir / "run"

    @property
    def log_dir(self) -> Path:
        return self.dir / "logs"

    @property
    def tmp_dir(self) -> Path:
        return self.dir / "tmp"

    @property
    def notices_dir(self) -> Path:
        """Where the stand-in of the notifier writes what people are told."""
        return self.dir / "notices"

    def data_dir(self, part: str) -> Path:
        return self.dir / "data" / part

    def log_file(self, part: str) -> Path:
        return self.log_dir / f"{part}.log"

    def held_file(self, part: str) -> Path:
        """Exists while a person holds the part down."""
        return self.run_dir / "held" / part

    @property
    def supervisor_socket(self) -> Path:
        path = self.run_dir / "supervisor.sock"
        if len(str(path)) <= _UNIX_SOCKET_PATH_MAX:
            return path
        digest = sha256(str(self.dir).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"encore-{os.getuid()}-{digest}" / "supervisor.sock"

    # -- files --

    def make_dirs(self) -> None:
        """The instance's folders. Others may walk through (Postgres has a user of its own), not write."""
        for folder in (self.dir / "data", self.run_dir / "held", self.log_dir, self.tmp_dir):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.dir.parent, self.dir, self.dir / "data"):
            folder.chmod(0o755)
        (self.dir.parent / ".gitignore").write_text("*\n")

    def save_config(self) -> None:
        """Persist the ports, how Kafka, Redis and Postgres are run, and where Kafka is if it is not ours."""
        config = {
            "ports": self.ports,
            "external_kafka": self.external_kafka,
            "brokers": self.broker_count,
            "redis": self.redis_topology,
            "replication": self.replication,
            "topic_partitions": self.topic_partitions,
        }
        write_atomically(self.config_file, json.dumps(config, indent=2) + "\n")

    def secrets(self) -> dict[str, str]:
        """The instance's secrets, made at the first call and readable by their owner only."""
        values = {key: str(value) for key, value in _read_json(self.secrets_file).items()}
        makers: dict[str, Callable[[], str]] = {
            "postgres_password": lambda: secrets.token_urlsafe(24),
            "replication_password": lambda: secrets.token_urlsafe(24),
            "database_password": lambda: secrets.token_urlsafe(24),
            "token_keys": lambda: f"k1:{secrets.token_hex(32)}",
            "person_secret": lambda: secrets.token_hex(32),
        }
        missing = {key: make() for key, make in makers.items() if key not in values}
        if missing:
            values |= missing
            self.dir.mkdir(parents=True, exist_ok=True)
            write_atomically(self.secrets_file, json.dumps(values, indent=2) + "\n", mode=0o600)
        return values

    # -- addresses --

    def url(self, part: str) -> str:
        """HTTP address of a part."""
        return f"http://{HOST}:{self.ports[part]}"

    def database_url(self, *parts: str) -> str:
        """The database on these servers; on all of them unless told otherwise: who connects finds the primary."""
        servers = self.addresses(parts or POSTGRES_SERVERS)
        return f"postgresql://encore:{self.secrets()['database_password']}@{servers}/encore"

    @property
    def replica_url(self) -> str:
        """The same for reads: they prefer the replica, whichever it is. It mostly is the second, which saves a look."""
        return self.database_url(*reversed(POSTGRES_SERVERS))

    @property
    def postgres_primary(self) -> str:
        """The server that is the primary, or is to be.

        Their data say so, which outlive every process: a replica's have ``standby.signal``, and what was the primary
        before a failover is marked until it has joined again (``rejoin_mark``).
        """
        replaced = [name for name in POSTGRES_SERVERS if self.rejoin_mark(name).exists()]
        able = [name for name in POSTGRES_SERVERS if name not in replaced]
        primaries = [
            name
            for name in able
            if (self.data_dir(name) / "PG_VERSION").exists() and not (self.data_dir(name) / "standby.signal").exists()
        ]
        return (primaries or able)[0]

    @property
    def postgres_replica(self) -> str:
        """The other one."""
        return next(name for name in POSTGRES_SERVERS if name != self.postgres_primary)

    def rejoin_mark(self, part: str) -> Path:
        """Exists while this server's data are those of a primary that another has replaced."""
        return self.data_dir(f"{part}.rejoin")

    @property
    def reservation_topic(self) -> str:
        """On a Kafka that is not ours alone the name is ours alone: others' events would be poison to our functions."""
        own = f".{sha256(str(self.dir).encode()).hexdigest()[:8]}" if self.external_kafka else ""
        return f"reservation-events{own}"

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.reservation_topic}.dead-letter"

    @property
    def brokers(self) -> tuple[str, ...]:
        """The parts that are this instance's own brokers."""
        return () if self.external_kafka else BROKERS[: self.broker_count]

    @property
    def redis_servers(self) -> tuple[str, ...]:
        """The parts that are this instance's Redis servers."""
        return REDIS_SERVERS[self.redis_topology]

    @property
    def sentinels(self) -> tuple[str, ...]:
        """The parts that are this instance's sentinels."""
        return SENTINELS if self.redis_topology == "sentinel" else ()

    @property
    def port_names(self) -> tuple[str, ...]:
        """The names of the ports that this instance needs."""
        left_out = {*BROKERS[1:], *REDIS_PARTS} - {*self.brokers, *self.redis_servers, *self.sentinels}
        has_buses = self.redis_topology == "cluster"
        names = (name for name in DEFAULT_PORTS if port_owner(name) not in left_out)
        return tuple(name for name in names if has_buses or not name.endswith("_bus"))

    @property
    def kafka_bootstrap_servers(self) -> str:
        return self.external_kafka or self.addresses(self.brokers)

    def redis_urls(self, database: int = 0) -> dict[str, str]:
        """Where the line (``queue``), the locks and the cache are. A cluster has no databases but the first."""
        endpoints = ("queue", "locks", "cache")
        if self.redis_topology == "split":
            servers = zip(endpoints, self.redis_servers, strict=True)
            return {endpoint: f"redis://{self.addresses([server])}/{database}" for endpoint, server in servers}
        return dict.fromkeys(endpoints, self._shared_redis_url(database))

    def _shared_redis_url(self, database: int) -> str:
        match self.redis_topology:
            case "sentinel":
                return f"redis+sentinel://{self.addresses(self.sentinels)}/{SENTINEL_SERVICE}/{database}"
            case "cluster":
                return f"redis+cluster://{self.addresses(self.redis_servers)}"
        return f"redis://{self.addresses(self.redis_servers)}/{database}"

    def addresses(self, parts: Sequence[str]) -> str:
        """host:port of these parts, with commas."""
        return ",".join(f"{HOST}:{self.ports[name]}" for name in parts)


def function_environment(instance: Instance) -> dict[str, str]:
    """The ENCORE_* values that functions, the fast gateway and the tools run with."""
    secret_values = instance.secrets()
    redis_urls = instance.redis_urls()
    return {
        "ENCORE_DATABASE_URL": instance.database_url(),
        "ENCORE_REPLICA_URL": instance.replica_url,
        "ENCORE_QUEUE_REDIS_URL": redis_urls["queue"],
        "ENCORE_LOCKS_REDIS_URL": redis_urls["locks"],
        "ENCORE_CACHE_REDIS_URL": redis_urls["cache"],
        "ENCORE_KAFKA_BOOTSTRAP_SERVERS": instance.kafka_bootstrap_servers,
        "ENCORE_RESERVATION_TOPIC": instance.reservation_topic,
        "ENCORE_DEAD_LETTER_TOPIC": instance.dead_letter_topic,
        "ENCORE_TOPIC_PARTITIONS": str(instance.topic_partitions),
        "ENCORE_NOTICES_URL": instance.notices_dir.as_uri(),
        "ENCORE_DANAL_URL": instance.url("danal"),
        "ENCORE_PAYCO_URL": instance.url("payco"),
        "ENCORE_TOKEN_KEYS": secret_values["token_keys"],
        "ENCORE_PERSON_SECRET": secret_values["person_secret"],
        "ENCORE_EDGE_TRUST": os.environ.get("ENCORE_EDGE_TRUST", "open"),
    }


def function_secrets(instance: Instance) -> dict[str, str]:
    """The JSON of the Secrets Manager secret that the template names."""
    secret_values = instance.secrets()
    return {
        "database_url": instance.database_url(),
        "replica_url": instance.replica_url,
        "token_keys": secret_values["token_keys"],
        "person_secret": secret_values["person_secret"],
    }


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file as a whole: readers see the old one or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
    draft.replace(path)


def _topic_partitions(before: int) -> int:
    """What ENCORE_TOPIC_PARTITIONS says, else what it was. Raises BadInstance."""
    text = os.environ.get("ENCORE_TOPIC_PARTITIONS") or str(before)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _TOPIC_PARTITIONS_MAX):
        raise BadInstance(f"ENCORE_TOPIC_PARTITIONS must be a number from 1 to {_TOPIC_PARTITIONS_MAX}: {text!r}")
    return int(text)


def _brokers(count: int) -> str:
    return f"{count} Kafka broker{'s' if count > 1 else ''}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}
