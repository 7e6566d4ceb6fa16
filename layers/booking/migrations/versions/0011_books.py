"""A copy of the payment firms' books: read piece by piece, compared with the payments in one statement."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    # Append-only, as the books are. Kept for ever, as the payments are.
    op.execute("""
        create table book_entry (
            gateway text not null,
            seq bigint not null,                          -- of this gateway's book; rising, not without gaps
            kind text not null check (kind in ('charge', 'refund')),
            key text not null,                            -- what the firm was asked under: a payment's id
            order_id text not null,                       -- a reservation's id
            amount bigint not null,                       -- smallest unit
            currency text not null,
            at timestamptz not null,                      -- the firm's clock
            primary key (gateway, seq)
        )
    """)
    op.execute(
        "create trigger append_only before update or delete on book_entry"
        " for each statement execute function refuse_change()"
    )
