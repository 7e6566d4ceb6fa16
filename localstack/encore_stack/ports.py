"""Which port each part listens on: what the environment says, what was used before, the default, or a free one."""

import os
import random
import socket
from collections.abc import Collection, Iterable, Mapping

HOST = "127.0.0.1"

DEFAULT_PORTS: Mapping[str, int] = {
    "postgres": 15432,
    "postgres2": 15433,
    "redis": 16379,
    "redis2": 16380,
    "redis3": 16381,
    "redis4": 16382,
    "redis5": 16383,
    "redis6": 16384,
    "redis_bus": 16389,
    "redis2_bus": 16390,
    "redis3_bus": 16391,
    "redis4_bus": 16392,
    "redis5_bus": 16393,
    "redis6_bus": 16394,
    "redis_locks": 16385,
    "redis_cache": 16386,
    "sentinel": 16396,
    "sentinel2": 16397,
    "sentinel3": 16398,
    "kafka": 19092,
    "kafka_controller": 19093,
    "kafka2": 19094,
    "kafka2_controller": 19095,
    "kafka3": 19096,
    "kafka3_controller": 19097,
    "danal": 18081,
    "payco": 18082,
    "localstack": 4566,
    "gateway": 8000,
}
"""Every port that an instance may use, by the name in ENCORE_PORT_<NAME>."""

_FREE_RANGE = (20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, so that none of those is in the way later."""


def port_owner(name: str) -> str:
    """The part that listens on the port of this name."""
    return name.removesuffix("_controller").removesuffix("_bus")


class PortTaken(Exception):
    """A port that was asked for by name is held by another process."""


class PortClaims:
    """Ports chosen but not listened on yet, so that stacks starting at the same moment choose different ones.

    A claim is an abstract unix socket: visible to every process of the machine, gone with the process that holds it.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def claim(self, port: int) -> bool:
        """Whether the port is now claimed: nobody listens on it and nobody else has claimed it."""
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0encore-port-{port}")
        except OSError:
            claim.close()
            return False
        if not is_free(port):
            claim.close()
            return False
        self._held.append(claim)
        return True

    def release(self) -> None:
        for claim in self._held:
            claim.close()
        self._held.clear()


def is_free(port: int) -> bool:
    """Whether nothing listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def choose_ports(
    persisted: Mapping[str, int],
    in_use: Collection[str],
    claims: PortClaims,
    *,
    use_defaults: bool,
    names: Iterable[str] = DEFAULT_PORTS,
) -> dict[str, int]:
    """A port for every name.

    `in_use` names the parts that run now: they keep what they have. Raises PortTaken for one set by ENCORE_PORT_<NAME>.
    """
    _refuse_unknown_names()
    wanted = {name: port for name in names if (port := _from_environment(name)) is not None}
    chosen: dict[str, int] = {}
    for name in names:
        before = persisted.get(name)
        if before is not None and name in in_use:
            if wanted.get(name, before) != before:
                raise PortTaken(
                    f"{name} runs on port {before}; scripts/down first, then ENCORE_PORT_{name.upper()} counts"
                )
            chosen[name] = before
        elif name in wanted:
            if not claims.claim(wanted[name]):
                raise PortTaken(f"port {wanted[name]} (ENCORE_PORT_{name.upper()}) is taken by another process")
            chosen[name] = wanted[name]
    for name in names:
        if name in chosen:
            continue
        candidates = [persisted.get(name), DEFAULT_PORTS[name] if use_defaults else None]
        chosen[name] = _first_free([port for port in candidates if port], claims)
    return chosen


def _refuse_unknown_names() -> None:
    known = {f"ENCORE_PORT_{name.upper()}" for name in DEFAULT_PORTS}
    unknown = sorted(name for name in os.environ if name.startswith("ENCORE_PORT_") and name not in known)
    if unknown:
        raise PortTaken(f"{unknown[0]} is no port's name; there are: {' '.join(sorted(known))}")


def _from_environment(name: str) -> int | None:
    text = os.environ.get(f"ENCORE_PORT_{name.upper()}")
    if not text:
        return None
    if not text.isdigit() or not 1 <= int(text) <= 65_535:
        raise PortTaken(f"ENCORE_PORT_{name.upper()} must be a port number, is {text!r}")
    return int(text)


def _first_free(candidates: list[int], claims: PortClaims) -> int:
    for port in candidates:
        if claims.claim(port):
            return port
    for port in random.sample(range(*_FREE_RANGE), 200):
        if claims.claim(port):
            return port
    raise PortTaken(f"no free port found between {_FREE_RANGE[0]} and {_FREE_RANGE[1]}")
