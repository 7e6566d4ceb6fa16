"""The record of transactions that sat on seats for too long."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("""
        create table long_lock (
            id bigint generated always as identity primary key,
            pid integer not null,
            started_at timestamptz not null,              -- of the transaction
            found_at timestamptz not null,
            role text not null,
            application_name text not null,
            client text,                                  -- address
            state text not null,                          -- as pg_stat_activity says it
            query text not null,                          -- the newest
            holds text[] not null,                        -- tables of the sale, 'person' for a person's lock
            waiting integer not null,                     -- most sessions that waited for it when it was looked at
            ended_at timestamptz,                         -- null: it is still there
            ended_by text,                                -- 'itself', the job, or an operator
            fault text,                                   -- why it could not be ended
            unique (pid, started_at)
        )
    """)
