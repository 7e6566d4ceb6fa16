-- A payment as step 7 and the reservation show it. A refund that the gateway has yet to confirm shows as pending.
create or replace function payment_facts(p_payment payment) returns json
language sql stable as $$
    select json_build_object(
        'payment_id', p_payment.id,
        'status', case p_payment.status when 'refunding' then 'pending' else p_payment.status end,
        'reservation_id', p_payment.reservation_id,
        'amount', p_payment.amount,
        'currency', p_payment.currency,
        'gateway', p_payment.gateway,
        'detail', case when p_payment.status in ('pending', 'captured', 'declined') then p_payment.detail end,
        'options', options_while_open(p_payment))
$$;
