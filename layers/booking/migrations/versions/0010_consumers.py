"""Two consumers of the reservation events, dead letters, sent notices, and what each concert has sold."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    # Raw: a record that is published as it stands, a dead letter or one that is tried again. ``data`` are its headers;
    # in place of a reservation stands its id in the inbox: what is published of it keeps its order.
    op.execute("""
        alter table outbox
            alter column seq drop not null,
            add column raw boolean not null default false,
            add column raw_key bytea,
            add column raw_value bytea,
            add constraint event_is_of_reservation check (raw = (seq is null))
    """)
    op.execute("""
        create table dead_letter (
            id bigint generated always as identity primary key,
            consumer text not null,
            event_id uuid not null,                       -- as in the inbox
            state text not null check (state in ('waiting', 'redriven', 'discarded')),
            topic text not null,                          -- where the record stood when it failed first
            partition integer not null,
            "offset" bigint not null,
            record_key bytea,
            record_value bytea,
            type text,                                    -- null: it could not be read
            reservation_id uuid,
            correlation_id text not null,
            error text not null,
            transient boolean not null,                   -- the record may take effect when it is tried again later
            attempts integer not null,
            redrives integer not null default 0,
            first_seen_at timestamptz not null,           -- when it was set aside
            last_seen_at timestamptz not null,
            redriven_at timestamptz,
            discarded_at timestamptz,
            discarded_by text,
            discard_reason text,
            unique (consumer, event_id),
            check ((state = 'discarded') = (discard_reason is not null))
        )
    """)
    op.execute("create index dead_letter_by_state on dead_letter (state, id)")

    # The sales' consumer goes on from what the one consumer of before has counted.
    op.execute("drop function if exists apply_reservation_event(uuid, text, uuid, integer, jsonb, text)")
    op.execute("""
        insert into inbox (consumer, event_id, attempts, done_at)
        select 'sales', event_id, attempts, done_at from inbox where consumer = 'tickets' and done_at is not null
    """)
    op.execute("""
        create table concert_sales (
            concert_id bigint primary key,
            seats_sold integer not null
        )
    """)
    op.execute("""
        insert into concert_sales select concert_id, sum(seats_sold) from schedule_sales
        group by concert_id having sum(seats_sold) > 0
    """)
    op.execute("create index concert_sales_best on concert_sales (seats_sold desc, concert_id)")

    # Whom of before was told, nobody knows: nobody is told again.
    op.execute("alter table notice add column sent_at timestamptz, add column attempts integer not null default 0")
    op.execute("update notice set sent_at = created_at")
    op.execute("create index notice_unsent on notice (attempts, created_at) where sent_at is null")
