"""The hot reads: a venue's time zone is one that exists (schedules are cached until its midnight)."""

from alembic import op

revision = "0006"
down_revision = "0003"


def upgrade() -> None:
    op.execute(
        "alter table concert add constraint timezone_exists"
        " check ((timestamptz 'epoch' at time zone timezone) is not null)"
    )
