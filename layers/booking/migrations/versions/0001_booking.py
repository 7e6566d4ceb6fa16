"""The whole booking flow; the statements are in the file of the same name.

``ENCORE_SEAT_PARTITIONS`` (0: one table) splits the seats by hash of their schedule when the table is made. Off by
default: at 1,500,000 seats partitions cost 20-30 % on reads and gain nothing.
"""

import os
from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

_STORAGE_MARK = "-- seat storage --"
_FILL = "with (fillfactor = 85)"  # room on each page keeps the updates of a sale in place (HOT)


def upgrade() -> None:
    partitions = int(os.environ.get("ENCORE_SEAT_PARTITIONS", "0"))
    storage = "partition by hash (schedule_id)" if partitions else _FILL
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").replace(_STORAGE_MARK, storage)
    bind = op.get_bind()
    bind.exec_driver_sql(statements)
    for remainder in range(partitions):
        bind.exec_driver_sql(
            f"create table seat_{remainder} partition of seat"
            f" for values with (modulus {partitions}, remainder {remainder}) {_FILL}"
        )
