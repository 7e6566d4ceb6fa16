"""Alembic's entry: run the revisions and then put every SQL function in place, in one transaction."""

from pathlib import Path

from alembic import context
from sqlalchemy import Connection, create_engine, pool

_FUNCTIONS = sorted((Path(__file__).resolve().parents[1] / "booking").glob("*/sql/functions/*.sql"))
_DEPLOY_LOCK = 0x656E636F7265  # 'encore'


def run() -> None:
    url = context.config.get_main_option("sqlalchemy.url")
    assert url is not None
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, transactional_ddl=True)
        with context.begin_transaction():
            connection.exec_driver_sql(f"select pg_advisory_xact_lock({_DEPLOY_LOCK})")
            context.run_migrations()
            replace_functions(connection)


def replace_functions(connection: Connection) -> None:
    for path in _FUNCTIONS:
        connection.exec_driver_sql(path.read_text(encoding="utf-8"))


run()
