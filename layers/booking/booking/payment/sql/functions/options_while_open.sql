-- What a person may do about a payment whose outcome is open; null: there is nothing to decide.
create or replace function options_while_open(p_payment payment) returns json
language sql immutable as $$
    select case when p_payment.status <> 'pending' then null
                when p_payment.give_up then '["wait"]'::json
                else '["wait", "cancel"]'::json end
$$;
