-- Turn a payment to the other firm, before that one is asked: what this says is where the money may be. Only for who
-- begun the payment and knows that nothing of it was sent.
-- It turns at most once, and only while nobody else can have asked the firm that is left: every other who asks takes the
-- payment first (checks), or says first that it is to be cancelled.
-- Answers the payment as payment_facts, null when it stays where it is.
create or replace function turn_payment(p_payment_id uuid, p_from text, p_to text, p_correlation_id text) returns json
language plpgsql as $$
declare
    v_now timestamptz;
    v_mine reservation;
    v_payment payment;
begin
    select r.* into strict v_mine from reservation r join payment p on p.reservation_id = r.id
    where p.id = p_payment_id for update of r;
    select * into strict v_payment from payment where id = p_payment_id for update;
    v_now := clock_timestamp();
    if v_payment.status <> 'pending' or v_payment.gateway <> p_from or v_payment.turned_from is not null
       or v_payment.checks > 0 or v_payment.cancelling then
        return null;
    end if;
    update payment set gateway = p_to, turned_from = p_from, turned_at = v_now, turn_reason = 'not-sent',
        next_check_at = v_now + first_check_after()
    where id = p_payment_id returning * into v_payment;
    perform emit_event(v_mine.id, 'payment.switched', turn_facts(v_payment, v_mine), p_correlation_id, v_now);
    return payment_facts(v_payment);
end $$;
