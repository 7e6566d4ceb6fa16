-- Whether the person is told of an event of this type. Not of what they have just done and been answered for, nor of which
-- firm a payment goes through.
create or replace function is_notice(p_type text) returns boolean
language sql immutable parallel safe as $$
    select p_type not in ('reservation.held', 'payment.switched')
$$;
