"""What needs more than the booking role has."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pg8000.native

from encore_stack.instance import Instance


@contextmanager
def superuser(instance: Instance, part: str = "postgres") -> Iterator[pg8000.native.Connection]:
    """A connection to the ``postgres`` or the ``replica``."""
    connection = pg8000.native.Connection(
        "postgres",
        password=instance.secrets()["postgres_password"],
        host="127.0.0.1",
        port=instance.ports[part],
        database="postgres",
        ssl_context=False,
    )
    with closing(connection):
        yield connection


def run_as_superuser(instance: Instance, *statements: str) -> None:
    """Run statements, each on its own."""
    with superuser(instance) as connection:
        for statement in statements:
            connection.run(statement)
