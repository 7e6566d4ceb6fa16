"""What needs more than the booking role has."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pg8000.native

from encore_stack.instance import Instance
from encore_stack.parts.postgres import connect


@contextmanager
def superuser(instance: Instance, part: str | None = None) -> Iterator[pg8000.native.Connection]:
    """A connection to one of the Postgres servers, the primary unless named."""
    connection = connect(instance, part or instance.postgres_primary, user="postgres", database="postgres")
    with closing(connection):
        yield connection


def run_as_superuser(instance: Instance, *statements: str) -> None:
    """Run statements, each on its own."""
    with superuser(instance) as connection:
        for statement in statements:
            connection.run(statement)
