"""Events that Kafka would not take are set aside; what is old is found for pruning."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("""
        alter table outbox
            add column attempts integer not null default 0,   -- in vain; 0 for whatever Kafka took at once
            add column next_try_at timestamptz,               -- until then its reservation's events wait
            add column last_error text
    """)
    op.execute("""
        create index outbox_set_aside on outbox (next_try_at)
            where published_at is null and next_try_at is not null
    """)
    op.execute("create index inbox_done on inbox (done_at)")
