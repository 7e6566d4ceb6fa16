-- The gateway has confirmed that the money went back. Safe to call again.
create or replace function finish_refund(p_payment_id uuid, p_correlation_id text) returns json
language plpgsql as $$
declare
    v_now timestamptz;
    v_payment payment;
    v_mine reservation;
begin
    select r.* into strict v_mine from reservation r join payment p on p.reservation_id = r.id
    where p.id = p_payment_id for update of r;
    select * into strict v_payment from payment where id = p_payment_id for update;
    v_now := clock_timestamp();
    if v_payment.status = 'refunding' then
        update payment set status = 'refunded', settled_at = v_now where id = p_payment_id returning * into v_payment;
        perform emit_event(v_mine.id, 'payment.refunded',
            reservation_facts(v_mine) || jsonb_build_object('payment_id', v_payment.id), p_correlation_id, v_now);
    end if;
    return payment_facts(v_payment);
end $$;
