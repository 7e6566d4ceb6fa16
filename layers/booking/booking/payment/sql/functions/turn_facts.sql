-- What the event payment.switched says.
create or replace function turn_facts(p_payment payment, p_mine reservation) returns jsonb
language plpgsql stable as $$
begin
    return reservation_facts(p_mine) || jsonb_build_object(
        'payment_id', p_payment.id, 'from', p_payment.turned_from, 'to', p_payment.gateway,
        'reason', p_payment.turn_reason);
end $$;
