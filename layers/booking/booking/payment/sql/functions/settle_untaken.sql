-- No money was taken and none will be: the hold goes on, or ends. Called by settle_payment, which documents it.
-- Answers the versions of the seats as change_seats, null when none has changed.
create or replace function settle_untaken(
    p_payment payment,
    p_mine reservation,
    p_outcome text,
    p_detail text,
    p_hold_after_decline_s integer,
    p_correlation_id text,
    p_at timestamptz
) returns jsonb
language plpgsql as $$
declare
    v_versions bigint[];
    v_expires_at timestamptz;
    v_changed jsonb;
begin
    update payment set status = 'declined', detail = p_detail, settled_at = p_at where id = p_payment.id;
    perform emit_event(p_mine.id, 'payment.declined',
        reservation_facts(p_mine) || jsonb_build_object('payment_id', p_payment.id, 'outcome', p_outcome),
        p_correlation_id, p_at);
    if p_mine.status <> 'paying' then
        return null;
    end if;
    v_versions := hold_may_go_on(p_mine, p_at);
    v_expires_at := least(p_mine.hard_cap_at,
                          greatest(p_mine.expires_at, p_at + make_interval(secs => p_hold_after_decline_s)));
    if v_versions is null or p_payment.give_up or v_expires_at <= p_at then
        v_changed := release_seats(p_mine, case when p_payment.give_up then 'released' else 'expired' end, p_at);
        update reservation set status = case when p_payment.give_up then 'cancelled' else 'expired' end, closed_at = p_at
        where id = p_mine.id;
        perform emit_event(p_mine.id, case when p_payment.give_up then 'reservation.cancelled' else 'reservation.expired' end,
                           reservation_facts(p_mine), p_correlation_id, p_at);
        return v_changed;
    end if;
    if v_expires_at > p_mine.expires_at then
        v_changed := change_seats(p_mine.schedule_id, p_mine.seats, v_versions, 'extended', 'held', v_expires_at,
                                  p_mine.id, p_at);
    end if;
    update reservation set status = 'held', expires_at = v_expires_at where id = p_mine.id;
    return v_changed;
end $$;
