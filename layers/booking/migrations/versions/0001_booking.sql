-- The whole booking flow. The rules that guard a sale are constraints of these tables; the functions beside the code
-- (booking/*/sql/functions/*.sql) keep them from ever being met.

-- Catalogue -----------------------------------------------------------------------------------------------------------

create table concert (
    id bigint primary key,
    title text not null,
    artist text not null,
    venue text not null,
    timezone text not null default 'Asia/Seoul',
    currency text not null default 'KRW' check (currency ~ '^[A-Z]{3}$'),
    sales_open_at timestamptz not null,
    sales_closed_at timestamptz,                          -- the operator ended the sale
    refund_until timestamptz,                             -- null: confirmed reservations cannot be given back
    seats_per_person_max smallint not null default 4 check (seats_per_person_max > 0)
);

create table schedule (
    id bigint primary key,
    concert_id bigint not null references concert,
    starts_at timestamptz not null
);
create index schedule_of_concert on schedule (concert_id, starts_at, id);

-- Seats and holds -----------------------------------------------------------------------------------------------------

create table seat (
    schedule_id bigint not null,
    number integer not null check (number > 0),
    section text not null,
    row_label text not null,
    price bigint not null check (price > 0),              -- smallest unit of the concert's currency
    state text not null default 'available' check (state in ('available', 'held', 'sold')),
    version bigint not null default 0,                    -- rises by one at every change: the fence of the sale
    held_until timestamptz,
    reservation_id uuid,
    primary key (schedule_id, number),
    check ((state = 'held') = (held_until is not null)),
    check ((state = 'available') = (reservation_id is null))
)
-- seat storage --
;

create table reservation (
    id uuid primary key default gen_random_uuid(),
    concert_id bigint not null,
    schedule_id bigint not null,
    person text not null,                                 -- hash of user_id
    pass_id text not null,
    seats integer[] not null check (cardinality(seats) > 0),
    total bigint not null check (total >= 0),
    currency text not null,
    status text not null check (status in ('held', 'paying', 'confirmed', 'expired', 'cancelled', 'refunded')),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    hard_cap_at timestamptz not null,                     -- no retry moves a hold past this
    closed_at timestamptz,
    event_seq integer not null default 0,                 -- the reservation's last event
    check (expires_at <= hard_cap_at)
);
create index reservation_of_person on reservation (person, concert_id)
    where status in ('held', 'paying', 'confirmed');
create index reservation_expiring on reservation (expires_at) where status = 'held';

-- Every change of a seat, for ever. The key says once more what change_seats sees to: a version of a seat is left once.
create table seat_ledger (
    schedule_id bigint not null,
    number integer not null,
    version bigint not null,
    event text not null check (event in ('held', 'extended', 'released', 'expired', 'sold', 'refunded')),
    state text not null,                                  -- the seat's after the event
    held_until timestamptz,                               -- the seat's after the event
    reservation_id uuid not null,
    displaced_reservation_id uuid,                        -- whose lapsed hold this hold replaced
    at timestamptz not null,
    primary key (schedule_id, number, version)
);
create index seat_ledger_of_reservation on seat_ledger (reservation_id);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end $$;
create trigger append_only before update or delete on seat_ledger
    for each statement execute function refuse_change();

create table idempotency (
    person text not null,
    route text not null,
    key text not null,
    body_hash text not null,
    reservation_id uuid not null,
    payment_id uuid,
    answer json,                                          -- null: the answer is the payment's present state
    created_at timestamptz not null,
    primary key (person, route, key)
);
create index idempotency_age on idempotency (created_at);

-- Payment -------------------------------------------------------------------------------------------------------------

create table payment (
    id uuid primary key default gen_random_uuid(),        -- also the idempotency key at the gateway
    reservation_id uuid not null references reservation,
    gateway text not null,                                -- where its first request was sent: it stays there
    amount bigint not null check (amount >= 0),
    currency text not null,
    method text not null,
    status text not null check (status in ('pending', 'captured', 'declined', 'refunding', 'refunded')),
    detail text,                                          -- the gateway's own word
    created_at timestamptz not null,
    deadline_at timestamptz not null,                     -- after this an unknown outcome is cancelled by key
    next_check_at timestamptz not null,
    checks integer not null default 0,
    -- Set before the gateway is asked to cancel. From then on a capture is not believed: it may have gone back already.
    cancelling boolean not null default false,
    give_up boolean not null default false,               -- the person cancelled: the seats go back with the payment
    settled_at timestamptz
);
create unique index payment_one_live on payment (reservation_id) where status in ('pending', 'captured', 'refunding');
create index payment_of_reservation on payment (reservation_id, created_at);
create index payment_unsettled on payment (next_check_at) where status in ('pending', 'refunding');

-- Events --------------------------------------------------------------------------------------------------------------

create table outbox (
    id bigint generated always as identity primary key,
    event_id uuid not null unique default gen_random_uuid(),
    topic text,                                           -- null: the topic of reservation events
    type text not null,
    reservation_id uuid not null,
    seq integer not null,
    occurred_at timestamptz not null,
    correlation_id text not null,
    data jsonb not null,
    published_at timestamptz,
    unique (reservation_id, seq)
);
create index outbox_unpublished on outbox (id) where published_at is null;
create index outbox_published on outbox (published_at) where published_at is not null;

create table inbox (
    consumer text not null,
    event_id uuid not null,
    attempts integer not null default 0,
    done_at timestamptz,
    last_error text,
    primary key (consumer, event_id)
);

create table ticket (
    id uuid primary key default gen_random_uuid(),
    reservation_id uuid not null unique references reservation,
    code text not null unique,
    issued_at timestamptz not null,
    revoked_at timestamptz
);

create table notice (
    event_id uuid primary key,
    reservation_id uuid not null,
    person text not null,
    kind text not null,
    data jsonb not null,
    created_at timestamptz not null
);
create index notice_of_reservation on notice (reservation_id, created_at);

-- Read model of the sales: what step 4 and the sold-out signal read, kept by the consumer of the events.
create table schedule_sales (
    schedule_id bigint primary key,
    concert_id bigint not null,
    seats_total integer not null,
    seats_sold integer not null default 0
);
create index schedule_sales_of_concert on schedule_sales (concert_id);

-- The waiting line's memory -------------------------------------------------------------------------------------------

-- Append-only: the settings in force at a moment are the last row before it.
create table gate_change (
    id bigint generated always as identity primary key,
    concert_id bigint not null references concert,
    epoch integer not null,                               -- one sale of one line; a new one forgets older tokens
    state text not null check (state in ('open', 'closed')),
    capacity integer not null check (capacity >= 0),      -- people inside at once
    rate_per_s numeric not null check (rate_per_s >= 0),  -- people let in each second
    paused boolean not null,
    message text,
    reason text not null,
    changed_at timestamptz not null default clock_timestamp()
);
create index gate_change_of_concert on gate_change (concert_id, id desc);
create trigger append_only before update or delete on gate_change
    for each statement execute function refuse_change();

create table admission (
    pass_id text primary key,
    concert_id bigint not null,
    person text not null,
    -- Null until the line's stream has been copied: a turn may end (be paid) before its admission arrives here.
    epoch integer,
    number bigint,                                        -- rises with every person let in, like a place
    place bigint,
    entered_after bigint,                                 -- admission number when the person last entered the line
    admitted_at timestamptz,
    claimed_at timestamptz,
    expires_at timestamptz,
    ended_at timestamptz,
    end_reason text check (end_reason in ('paid', 'left', 'lapsed')),
    unique (concert_id, epoch, number)
);
create index admission_unexpired on admission (concert_id, expires_at) where ended_at is null;
