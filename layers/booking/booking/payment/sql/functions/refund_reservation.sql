-- Take a confirmed reservation back: the seats are free at once, the money is owed until the gateway has confirmed the
-- refund (finish_refund). Outcomes: refunding (with "payment"), too-late (past the concert's deadline, or it has none),
-- already ("status"), not-found (also for a stranger's).
-- refunding and already come with "changed", the versions of the seats (seat_versions; null: none has changed).
create or replace function refund_reservation(
    p_person text,
    p_reservation_id uuid,
    p_correlation_id text
) returns json
language plpgsql as $$
declare
    v_now timestamptz;
    v_mine reservation;
    v_payment payment;
    v_changed jsonb;
begin
    perform pg_advisory_xact_lock(hashtextextended(p_person, 0));
    select * into v_mine from reservation where id = p_reservation_id and person = p_person for update;
    v_now := clock_timestamp();
    if not found then
        return json_build_object('outcome', 'not-found');
    elsif v_mine.status <> 'confirmed' then
        return json_build_object('outcome', 'already', 'status', v_mine.status,
                                 'changed', seat_versions(v_mine.schedule_id, v_mine.seats));
    elsif not exists (select from concert where id = v_mine.concert_id and refund_until > v_now) then
        return json_build_object('outcome', 'too-late');
    end if;
    update payment set status = 'refunding', next_check_at = v_now
    where reservation_id = v_mine.id and status = 'captured' returning * into strict v_payment;
    v_changed := release_seats(v_mine, 'refunded', v_now);
    update reservation set status = 'refunded', closed_at = v_now where id = v_mine.id;
    perform emit_event(v_mine.id, 'reservation.refunded',
        reservation_facts(v_mine) || jsonb_build_object('payment_id', v_payment.id), p_correlation_id, v_now);
    return json_build_object('outcome', 'refunding', 'payment', payment_facts(v_payment), 'changed', v_changed);
end $$;
