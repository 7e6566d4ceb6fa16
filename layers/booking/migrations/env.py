"""Alembic's entry: run the revisions and then put every SQL function in place, in one transaction."""

from pathlib import Path

from alembic import context
from sqlalchemy import Connection, create_engine, pool
from sqlalchemy.exc import DBAPIError, ProgrammingError

_FUNCTIONS = sorted((Path(__file__).resolve().parents[1] / "booking").glob("*/sql/functions/*.sql"))
_DEPLOY_LOCK = 0x656E636F7265  # 'encore'
_DROP = """
do $$ declare
    v_old regprocedure;
begin
    for v_old in
        select oid from pg_proc where proname = '{name}' and pronamespace = current_schema()::regnamespace
    loop
        execute format('drop function %s', v_old);
    end loop;
end $$
"""
_COUNT = "select count(*) from pg_proc where proname = '{name}' and pronamespace = current_schema()::regnamespace"


class UnusableFunction(Exception):
    """Postgres refuses a function; the message says which file, and why."""


def _reason(fault: DBAPIError) -> str:
    details = fault.orig.args[0] if fault.orig and fault.orig.args else None
    if not isinstance(details, dict):
        return str(fault.orig)
    return f"{details.get('M')} (position {details.get('P', details.get('p', '?'))})"


def run() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    assert url is not None
    # The name says to whoever ends long locks that this one is meant.
    engine = create_engine(url, poolclass=pool.NullPool, connect_args={"application_name": "encore-migrate"})
    with engine.connect() as connection:
        context.configure(connection=connection, transactional_ddl=True)
        with context.begin_transaction():
            connection.exec_driver_sql(f"select pg_advisory_xact_lock({_DEPLOY_LOCK})")
            context.run_migrations()
            if context.get_revision_argument() == context.get_head_revision():
                put_functions_in_place(connection)


def put_functions_in_place(connection: Connection) -> None:
    """Every SQL function beside the code: they are written for the newest tables. Raises UnusableFunction."""
    for path in _FUNCTIONS:
        try:
            replace_function(connection, path.stem, path.read_text(encoding="utf-8"))
        except DBAPIError as fault:
            raise UnusableFunction(f"{path}: {_reason(fault)}") from fault


def replace_function(connection: Connection, name: str, definition: str) -> None:
    """Put a function in place. A file is named after its function, and there is one of that name afterwards.

    ``create or replace`` keeps what has not changed as it is; it refuses another type of result and leaves an old list
    of arguments beside the new one, and both mean dropping first.
    """
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(definition)
            replaced = connection.exec_driver_sql(_COUNT.format(name=name)).scalar() == 1
    except ProgrammingError as fault:
        if "42P13" not in str(fault):  # invalid_function_definition
            raise
        replaced = False
    if not replaced:
        connection.exec_driver_sql(_DROP.format(name=name))
        connection.exec_driver_sql(definition)


run()
