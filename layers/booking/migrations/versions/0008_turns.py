"""What becomes of a payment on its way: when it was left open, which firm it turned from, when its money was taken."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("""
        alter table payment
            add column pending_at timestamptz,            -- the person was told that the outcome is open
            add column captured_at timestamptz,           -- also of money that went back later
            add column turned_from text,                  -- the firm that surely took nothing and was left
            add column turned_at timestamptz,
            add column turn_reason text check (turn_reason in ('not-sent', 'cancelled')),
            add check ((turned_from is null) = (turned_at is null) and (turned_from is null) = (turn_reason is null)),
            add check (turned_from <> gateway)
    """)
    # Of a refund's capture the sale knows the moment; where there was no sale, settled_at is that of the capture or,
    # once the firm has confirmed the refund, the best there is.
    op.execute("""
        update payment p set captured_at = case status when 'captured' then settled_at else coalesce((
            select min(at) from seat_ledger l where l.reservation_id = p.reservation_id and l.event = 'sold'
        ), settled_at) end
        where status in ('captured', 'refunding', 'refunded')
    """)
