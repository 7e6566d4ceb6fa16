-- What an event of a reservation does, once: ticket, notice, sales counters. The inbox row is written in the same
-- transaction, so a record that comes again (a redrive, a replay of the whole topic) changes nothing.
--
-- Events of one reservation may arrive out of order. The counters only add and take away; the ticket looks at the
-- reservation as it is now: who was refunded before the ticket was issued gets none.
-- An event may tell of a commit that was lost: it was published, and then a failover without synchronous replication made
-- a server the primary that had not got it. It is void, and counts as done: no outbox row has its id (as of one that was
-- pruned), and the reservation is not there, has not come so far, or has had another event of that number since.
-- Answers {"applied", "concert_id", "sold_out", "paid_by", "changed"}: sold_out is null unless the event moved the concert's
-- counters; paid_by, the person and the pass, unless a turn ended with the event; changed has the present versions of the
-- reservation's seats (seat_versions). {"applied": false, "void": true} for a void one.
create or replace function apply_reservation_event(
    p_event_id uuid,
    p_type text,
    p_reservation_id uuid,
    p_seq integer,
    p_data jsonb,
    p_ticket_code text
) returns json
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_mine reservation;
    v_moved integer := 0;
begin
    insert into inbox as i (consumer, event_id, attempts, done_at) values ('tickets', p_event_id, 1, v_now)
    on conflict (consumer, event_id) do update set attempts = i.attempts + 1, done_at = v_now where i.done_at is null;
    if not found then
        -- What Redis is told is told again: whoever applied it may have died before it got there.
        select * into v_mine from reservation where id = p_reservation_id;
        return json_build_object('applied', false, 'concert_id', v_mine.concert_id, 'paid_by', case
            when p_type = 'reservation.confirmed' then
                json_build_object('person', v_mine.person, 'pass_id', v_mine.pass_id) end,
            'changed', seat_versions(v_mine.schedule_id, v_mine.seats));
    end if;

    -- Share: a refund that is about to commit is waited for, and then seen.
    select * into v_mine from reservation where id = p_reservation_id for share;
    if not exists (select from outbox where event_id = p_event_id) and (
        v_mine.id is null or v_mine.event_seq < p_seq
        or exists (select from outbox where reservation_id = p_reservation_id and seq = p_seq)
    ) then
        return json_build_object('applied', false, 'void', true);
    end if;
    if p_type = 'reservation.confirmed' then
        v_moved := cardinality(v_mine.seats);
        if v_mine.status = 'confirmed' then
            insert into ticket (reservation_id, code, issued_at) values (v_mine.id, p_ticket_code, v_now)
            on conflict (reservation_id) do nothing;
        end if;
    elsif p_type = 'reservation.refunded' then
        v_moved := -cardinality(v_mine.seats);
        update ticket set revoked_at = v_now where reservation_id = v_mine.id and revoked_at is null;
    end if;

    if p_type <> 'reservation.held' then
        insert into notice (event_id, reservation_id, person, kind, data, created_at)
        values (p_event_id, v_mine.id, v_mine.person, p_type, p_data, v_now)
        on conflict (event_id) do nothing;
    end if;
    if v_moved = 0 then
        return json_build_object('applied', true, 'changed', seat_versions(v_mine.schedule_id, v_mine.seats));
    end if;
    update schedule_sales set seats_sold = seats_sold + v_moved where schedule_id = v_mine.schedule_id;
    return json_build_object(
        'applied', true,
        'concert_id', v_mine.concert_id,
        'sold_out', (
            select sum(seats_sold) >= sum(seats_total) from schedule_sales where concert_id = v_mine.concert_id),
        'paid_by', case when v_moved > 0 then
            json_build_object('person', v_mine.person, 'pass_id', v_mine.pass_id) end,
        'changed', seat_versions(v_mine.schedule_id, v_mine.seats));
end $$;
