-- The outcome of a payment is open, and the person is to be told: once. Safe to call again, also when it is settled.
create or replace function tell_pending(p_payment_id uuid, p_correlation_id text) returns void
language plpgsql as $$
declare
    v_now timestamptz;
    v_mine reservation;
    v_payment payment;
begin
    select r.* into strict v_mine from reservation r join payment p on p.reservation_id = r.id
    where p.id = p_payment_id for update of r;
    v_now := clock_timestamp();
    update payment set pending_at = v_now where id = p_payment_id and status = 'pending' and pending_at is null
    returning * into v_payment;
    if found then
        perform emit_event(v_mine.id, 'payment.pending', reservation_facts(v_mine) || jsonb_build_object(
            'payment_id', v_payment.id, 'gateway', v_payment.gateway, 'options', options_while_open(v_payment)),
            p_correlation_id, v_now);
    end if;
end $$;
