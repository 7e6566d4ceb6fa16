"""Addresses of Redis: one URL scheme for each way in which it is run. Imports no Redis: settings check them with it.

====================================================================== ==============================================
redis://host:6379/0                                                    one server, and its database
redis+sentinel://host:26379,host:26379,host:26379/service/0            sentinels, the name under which they watch the
                                                                       master, and its database
redis+cluster://host:6379,host:6379,host:6379                          some nodes of a cluster (it has one database)
====================================================================== ==============================================

``rediss`` in place of ``redis`` means TLS, to the sentinels too; ``?ssl_ca_certs=`` and the other ``ssl_`` options of
redis-py may follow. ``user:password@`` before the first host is for the servers. Ports may be left out.
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

Kind = Literal["single", "sentinel", "cluster"]

_URL = re.compile(
    r"(?P<scheme>rediss?)(\+(?P<kind>sentinel|cluster))?://((?P<user>[^@/]*)@)?(?P<hosts>[^@/?#]+)"
    r"(/(?P<path>[^?#]*))?(\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:(?P<port>\d{1,5}))?")
_FORMS = (
    "redis://host:port/database, redis+sentinel://host:port,host:port,host:port/service/database or"
    " redis+cluster://host:port,host:port,host:port (with rediss in place of redis: TLS)"
)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """What a URL says. ``hosts`` are the server, the sentinels or some nodes of the cluster."""

    kind: Kind
    scheme: str
    user: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    database: int
    query: str

    def server_url(self, host: str, port: int) -> str:
        """The URL of one server, in redis-py's form."""
        user = f"{self.user}@" if self.user else ""
        name = f"[{host}]" if ":" in host else host
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{user}{name}:{port}/{self.database}{query}"


def parse_redis_url(url: str) -> RedisUrl:
    """Raises ValueError that names the forms there are; it does not show the URL, which may hold a password."""
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError(f"must be {_FORMS}")
    kind: Kind = parts["kind"] or "single"  # type: ignore[assignment]  # the expression allows no others
    hosts = tuple(_host(text, 26379 if kind == "sentinel" else 6379) for text in parts["hosts"].split(","))
    if kind == "single" and len(hosts) > 1:
        raise ValueError(f"names several servers: must be {_FORMS}")
    service, database = _service_and_database(kind, parts["path"] or "")
    query = parts["query"] or ""
    if any(not name.startswith("ssl_") for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise ValueError("takes no options but those of TLS, which begin with ssl_")
    return RedisUrl(kind, parts["scheme"], parts["user"] or "", hosts, service, database, query)


def _host(text: str, default_port: int) -> tuple[str, int]:
    parts = _HOST.fullmatch(text)
    port = int(parts["port"] or default_port) if parts else 0
    if parts is None or not 1 <= port <= 65_535:
        raise ValueError(f"has a host that is not host:port: must be {_FORMS}")
    return parts["host"].strip("[]"), port


def _service_and_database(kind: Kind, path: str) -> tuple[str, int]:
    service, _, database = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel" and not service:
        raise ValueError(f"does not name the service that the sentinels watch: must be {_FORMS}")
    if not re.fullmatch(r"\d*", database):
        raise ValueError(f"has a database that is no number: must be {_FORMS}")
    if kind == "cluster" and database not in ("", "0"):
        raise ValueError("names a database: a cluster has but the first")
    return service, int(database or 0)
