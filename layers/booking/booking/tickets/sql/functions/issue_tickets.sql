-- What a batch of events does for the people: ticket and notice, each event once (take_events).
--
-- Events of one reservation may arrive out of order. The ticket looks at the reservation as it is now: who was refunded
-- before the ticket was issued gets none.
-- Answers {"outcomes": {event_id: outcome}, "changed", "paid"}. changed has the present versions of the reservations'
-- seats, by schedule (as seat_versions has them); paid, the concert, person and pass of each turn that has ended with a
-- payment. Both also tell of events seen before: what Redis is told is told again, as whoever applied them may have died
-- before that.
create or replace function issue_tickets(p_events jsonb) returns json
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_answer json;
begin
    with taken as materialized (
        select t.*, r.person, r.concert_id, r.pass_id, r.schedule_id, r.seats
        from take_events('tickets', p_events) t left join reservation r on r.id = t.reservation_id
    ), confirmed as (
        -- Share: a refund that is about to commit is waited for, and then seen.
        select id from reservation
        where id in (select reservation_id from taken where outcome = 'applied' and type = 'reservation.confirmed')
            and status = 'confirmed'
        order by id
        for share
    ), issued as (
        insert into ticket (reservation_id, code, issued_at)
        select c.id, t.event ->> 'ticket_code', v_now
        from confirmed c join taken t on t.reservation_id = c.id and t.type = 'reservation.confirmed'
        on conflict (reservation_id) do nothing
    ), revoked as (
        update ticket set revoked_at = v_now
        from taken t
        where t.outcome = 'applied' and t.type = 'reservation.refunded'
            and ticket.reservation_id = t.reservation_id and ticket.revoked_at is null
    ), noticed as (
        insert into notice (event_id, reservation_id, person, kind, data, created_at)
        -- People are told in this order: of one reservation, in that of its events.
        select event_id, reservation_id, person, type, event -> 'data', v_now + (event ->> 'seq')::integer * interval '1 us'
        from taken where outcome = 'applied' and is_notice(type)
        on conflict (event_id) do nothing
    ), touched as (
        select distinct schedule_id, unnest(seats) as number from taken where outcome <> 'void'
    ), changed as (
        select t.schedule_id, jsonb_object_agg(s.number, s.version) as versions
        from touched t join seat s on s.schedule_id = t.schedule_id and s.number = t.number
        group by t.schedule_id
    )
    select json_build_object(
        'outcomes', (select json_object_agg(event_id, outcome) from taken),
        'changed', (select coalesce(json_agg(changed), '[]') from changed),
        'paid', (
            select coalesce(json_agg(json_build_object('concert_id', concert_id, 'person', person, 'pass_id', pass_id)), '[]')
            from taken where type = 'reservation.confirmed' and outcome <> 'void' and pass_id is not null))
    into v_answer;
    return v_answer;
end $$;
