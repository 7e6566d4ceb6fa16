-- One row a key: its present state. A tombstone is a cancelled row without an order.
create table if not exists payment (
    key             text primary key,
    status          text not null check (status in ('captured', 'declined', 'cancelled')),
    order_id        text,
    amount          integer,
    currency        text,
    method          text,
    captured_amount integer not null default 0,
    refunded_amount integer not null default 0,
    created_at      text not null,
    cancelled_at    text,
    check (refunded_amount in (0, captured_amount))
);

-- Money that moved, append-only. The unique constraint makes a second charge or refund of a key impossible.
create table if not exists entry (
    seq      integer primary key autoincrement,
    kind     text not null check (kind in ('charge', 'refund')),
    key      text not null,
    order_id text not null,
    amount   integer not null,
    currency text not null,
    at       text not null,
    unique (key, kind)
);
create index if not exists entry_order_id on entry (order_id, seq);
