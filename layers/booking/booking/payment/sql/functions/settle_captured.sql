-- The money was taken: sell the seats, or owe it back. Called by settle_payment, which holds the locks and documents it.
-- Answers the versions of the seats as change_seats, null when none has changed.
create or replace function settle_captured(
    p_payment payment,
    p_mine reservation,
    p_detail text,
    p_correlation_id text,
    p_at timestamptz
) returns jsonb
language plpgsql as $$
declare
    v_seats record;
    v_retaken boolean;
    v_sellable boolean;
    v_changed jsonb;
begin
    select array_agg(version order by number) as versions,
           bool_and(state = 'held' and reservation_id = p_mine.id) as own,
           bool_and(state = 'available' or (state = 'held' and (reservation_id = p_mine.id or held_until <= p_at))) as free
    into v_seats
    from (
        select number, version, state, held_until, reservation_id from seat
        where schedule_id = p_mine.schedule_id and number = any (p_mine.seats)
        order by number
        for update
    ) locked;
    -- A lapsed hold no longer counts towards the limit, so the person may have taken other seats in the meantime.
    v_retaken := p_mine.status not in ('held', 'paying') or p_mine.expires_at <= p_at;
    v_sellable := p_mine.status in ('held', 'paying', 'expired') and v_seats.free and (
        not v_retaken
        or seats_of_person(p_mine.person, p_mine.concert_id, p_at) + cardinality(p_mine.seats)
           <= (select seats_per_person_max from concert where id = p_mine.concert_id));
    if not v_sellable then
        v_changed := release_seats(p_mine, 'released', p_at);
        update payment set status = 'refunding', detail = p_detail, captured_at = p_at, next_check_at = p_at where id = p_payment.id;
        update reservation set status = 'refunded', closed_at = p_at where id = p_mine.id;
        perform emit_event(p_mine.id, 'payment.refunding',
            reservation_facts(p_mine) || jsonb_build_object('payment_id', p_payment.id), p_correlation_id, p_at);
        return v_changed;
    end if;
    v_changed := change_seats(p_mine.schedule_id, p_mine.seats, v_seats.versions, 'sold', 'sold', null, p_mine.id, p_at);
    update payment set status = 'captured', detail = p_detail, captured_at = p_at, settled_at = p_at where id = p_payment.id;
    update reservation set status = 'confirmed', closed_at = null where id = p_mine.id;
    perform end_admission(p_mine.pass_id, p_mine.concert_id, p_mine.person, 'paid', p_at);
    perform emit_event(p_mine.id, 'reservation.confirmed',
        reservation_facts(p_mine) || jsonb_build_object('payment_id', p_payment.id, 'gateway', p_payment.gateway,
                                                        'retaken', not v_seats.own),
        p_correlation_id, p_at);
    return v_changed;
end $$;
