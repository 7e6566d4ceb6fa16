"""Addresses of Postgres, in libpq's form: ``postgresql://user:password@host:port,host:port/database``.

Several hosts are the servers of one database, a primary and its standbys, in any order: who takes writes is found out
when a connection is opened. One host may be anything that stands for the right server: an RDS or Aurora endpoint, a
proxy, a pooler. Ports may be left out (5432). Imports no driver: settings check the addresses with it.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

Address = tuple[str, int]

_URL = re.compile(
    r"postgres(?:ql)?://(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?(?P<hosts>[^@/?#]+)/(?P<database>[^/?#]+)"
    r"(?P<rest>.*)"
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(?P<port>\d{1,5}))?")
_FORM = "postgresql://user:password@host:port/database, with host:port,host:port for a primary and its standbys"


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """What a URL says; user, password and database unquoted."""

    user: str
    password: str
    hosts: tuple[Address, ...]
    database: str

    def server_url(self, host: Address) -> str:
        """The URL of one of the servers."""
        password = f":{quote(self.password, safe='')}" if self.password else ""
        login = f"{quote(self.user, safe='')}{password}@" if self.user else ""
        name = f"[{host[0]}]" if ":" in host[0] else host[0]
        return f"postgresql://{login}{name}:{host[1]}/{quote(self.database, safe='')}"


def parse_database_url(url: str) -> DatabaseUrl:
    """Raises ValueError that names the form; it does not show the URL, which may hold a password."""
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError(f"must be {_FORM}")
    if parts["rest"]:
        raise ValueError(f"takes no options and nothing else after the database: must be {_FORM}")
    hosts = tuple(_host(text) for text in parts["hosts"].split(","))
    if len(set(hosts)) < len(hosts):
        raise ValueError("names a server twice")
    user, password, database = (unquote(parts[name] or "") for name in ("user", "password", "database"))
    return DatabaseUrl(user, password, hosts, database)


def _host(text: str) -> Address:
    parts = _HOST.fullmatch(text)
    port = int(parts["port"] or 5432) if parts else 0
    if parts is None or not 1 <= port <= 65_535:
        raise ValueError(f"has a host that is not host:port: must be {_FORM}")
    return parts["host"].strip("[]"), port
