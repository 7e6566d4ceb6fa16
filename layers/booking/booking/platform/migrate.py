"""Bring a database to the schema of this version: ``python -m booking.platform.migrate [DATABASE_URL]``.

Alembic runs the revisions in ``layers/booking/migrations``; then every SQL function beside the code
(``booking/*/sql/functions/*.sql``, each ``create or replace``) is put in place, so that a function and its caller
change in one commit. A deploy-time tool: no function imports it.
"""

import os
import sys
import traceback
from pathlib import Path

from alembic import command
from alembic.config import Config

from booking.platform.postgres import writer_url

_MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def migrate(database_url: str, revision: str = "head") -> None:
    """Apply what is missing up to ``revision``; with the newest one, put the SQL functions in place, too.

    Safe to run again and by several at once (an advisory lock lets one through at a time).
    """
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    url = writer_url(database_url).replace("postgresql://", "postgresql+pg8000://", 1)
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, revision)


def main() -> int:
    """Command line entry: the URL comes as the only argument or as ENCORE_DATABASE_URL."""
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ENCORE_DATABASE_URL")
    if not url:
        print("migrate: give the database URL as an argument or in ENCORE_DATABASE_URL", file=sys.stderr)
        return 2
    try:
        migrate(url)
    except Exception as fault:
        # The statement that failed comes with its whole text: what is wrong goes last, where people look.
        traceback.print_exc()
        print(f"migrate: {str(fault).splitlines()[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
