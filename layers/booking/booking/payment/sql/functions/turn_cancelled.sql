-- The gateway has confirmed that it took nothing and never will: turn the payment to another one and hold the seats on, for
-- p_deadline_s at most and never past the cap. Called by settle_payment, which documents it and holds the locks.
-- Answers the versions of the seats (seat_versions); null: it may not turn, and nothing has changed.
create or replace function turn_cancelled(
    p_payment payment,
    p_mine reservation,
    p_turn_to text,
    p_turn_s_min integer,
    p_deadline_s integer,
    p_correlation_id text,
    p_at timestamptz
) returns jsonb
language plpgsql as $$
declare
    v_payment payment;
    v_versions bigint[];
    v_deadline_at timestamptz;
begin
    if p_turn_to is null or p_payment.turned_from is not null or p_payment.give_up or p_mine.status <> 'paying'
       or p_mine.hard_cap_at < p_at + make_interval(secs => p_turn_s_min) then
        return null;
    end if;
    v_versions := hold_may_go_on(p_mine, p_at);
    if v_versions is null then
        return null;
    end if;
    v_deadline_at := least(p_mine.hard_cap_at, p_at + make_interval(secs => p_deadline_s));
    update payment set gateway = p_turn_to, turned_from = p_payment.gateway, turned_at = p_at, turn_reason = 'cancelled',
        cancelling = false, deadline_at = v_deadline_at, next_check_at = p_at, checks = 0
    where id = p_payment.id returning * into v_payment;
    perform emit_event(p_mine.id, 'payment.switched', turn_facts(v_payment, p_mine), p_correlation_id, p_at);
    if v_deadline_at <= p_mine.expires_at then
        return seat_versions(p_mine.schedule_id, p_mine.seats);
    end if;
    update reservation set expires_at = v_deadline_at where id = p_mine.id;
    return change_seats(p_mine.schedule_id, p_mine.seats, v_versions, 'extended', 'held', v_deadline_at, p_mine.id, p_at);
end $$;
