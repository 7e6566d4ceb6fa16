-- Record what a gateway surely did with a payment: the one place where a payment's outcome becomes a reservation's fate.
-- p_outcome: captured | declined | cancelled (nothing was taken and nothing can be any more), at p_gateway.
-- Safe to call again, by anyone who has learnt the outcome: a payment that is settled stays as it is, and so does one that
-- has turned to another gateway meanwhile: it was left for having taken nothing, and what was captured there late went back.
--
-- captured: the seats are sold. Where the hold had lapsed, the same seats are retaken if all of them are still free and
--   the person's limit allows; else the money must go back: the payment is 'refunding' and the reservation 'refunded'.
-- declined, cancelled: the hold goes on, for at least p_hold_after_decline_s more (within its cap), if it still has its
--   seats and the person's limit still allows them; else it has expired. Where the person gave up, the seats are put back
--   at once.
-- cancelled, with p_turn_to: instead of ending, the payment turns to that gateway, if it has never turned, the person has not
--   given up and the hold may go on for p_turn_s_min at least; for p_deadline_s at most.
-- captured, but being cancelled: nothing is decided. The cancellation may have sent the money back already, or will; only
--   its own answer settles the payment.
-- Answers {"payment", "reservation_status", "concert_id", "person", "pass_id", "settled_now", "changed"}; "changed": the
-- versions of the seats (seat_versions), null when none has changed.
create or replace function settle_payment(
    p_payment_id uuid,
    p_gateway text,
    p_outcome text,
    p_detail text,
    p_hold_after_decline_s integer,
    p_correlation_id text,
    p_turn_to text default null,
    p_turn_s_min integer default null,
    p_deadline_s integer default null
) returns json
language plpgsql
set plan_cache_mode = force_generic_plan  -- the planner would plan for each list of seats anew, to the same plan
set enable_seqscan = off  -- a plan made while the tables are small is kept when they are not
as $$
declare
    v_now timestamptz;
    v_payment payment;
    v_mine reservation;
    v_settled_now boolean := false;
    v_turned boolean := false;
    v_changed jsonb;
begin
    select r.* into strict v_mine from reservation r join payment p on p.reservation_id = r.id where p.id = p_payment_id;
    perform pg_advisory_xact_lock(hashtextextended(v_mine.person, 0));
    select * into strict v_mine from reservation where id = v_mine.id for update;
    select * into strict v_payment from payment where id = p_payment_id for update;
    v_now := clock_timestamp();
    if v_payment.status <> 'pending' or v_payment.gateway <> p_gateway then
        v_changed := seat_versions(v_mine.schedule_id, v_mine.seats);
    elsif p_outcome = 'captured' and v_payment.cancelling then
        update payment set next_check_at = v_now where id = p_payment_id;
        v_changed := seat_versions(v_mine.schedule_id, v_mine.seats);
    else
        if p_outcome = 'cancelled' then
            v_changed := turn_cancelled(v_payment, v_mine, p_turn_to, p_turn_s_min, p_deadline_s, p_correlation_id, v_now);
            v_turned := v_changed is not null;
        end if;
        if p_outcome = 'captured' then
            v_changed := settle_captured(v_payment, v_mine, p_detail, p_correlation_id, v_now);
        elsif not v_turned then
            v_changed := settle_untaken(v_payment, v_mine, p_outcome, p_detail, p_hold_after_decline_s,
                                        p_correlation_id, v_now);
        end if;
        v_settled_now := not v_turned;
        select * into strict v_mine from reservation where id = v_mine.id;
        select * into strict v_payment from payment where id = v_payment.id;
    end if;
    return json_build_object(
        'payment', payment_facts(v_payment), 'reservation_status', v_mine.status, 'concert_id', v_mine.concert_id,
        'person', v_mine.person, 'pass_id', v_mine.pass_id, 'settled_now', v_settled_now, 'changed', v_changed);
end $$;
