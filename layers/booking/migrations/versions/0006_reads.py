"""The hot reads: where those of a concert come from, as operators have set it. And a venue's time zone is one that
exists: schedules are cached until its midnight."""

from alembic import op

revision = "0006"
down_revision = "0003"


def upgrade() -> None:
    op.execute(
        "alter table concert add constraint timezone_exists"
        " check ((timestamptz 'epoch' at time zone timezone) is not null)"
    )
    # Append-only: the newest row of a concert counts; without one its reads come from the cache.
    op.execute("""
        create table reads_change (
            id bigint generated always as identity primary key,
            concert_id bigint not null references concert,
            source text not null check (source in ('cache', 'database')),
            reason text not null,
            changed_by text not null,
            changed_at timestamptz not null default clock_timestamp()
        )
    """)
    op.execute("create index reads_change_of_concert on reads_change (concert_id, id desc)")
    op.execute(
        "create trigger append_only before update or delete on reads_change"
        " for each statement execute function refuse_change()"
    )
