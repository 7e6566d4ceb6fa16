-- Open a payment of a hold before anything is asked of a gateway, so that whatever happens next can be found again.
-- The hold is extended to the payment's own deadline, never past its hard cap.
--
-- Answers a JSON object whose "outcome" is one of
--   begun           with "payment"; the gateway is to be asked now, with the payment's id as key
--   replayed        the same key and body came before: with that "payment" as it stands now
--   key-reused, not-found (also for a stranger's), wrong-concert, hold-expired ("status"), already-paid,
--   in-progress     (another payment of this reservation is under way: with that "payment")
-- Only "begun" has changed anything. begun and replayed come with "changed", the versions of the seats (seat_versions; null:
-- the hold was long enough).
create or replace function begin_payment(
    p_person text,
    p_key text,
    p_body_hash text,
    p_concert_id bigint,
    p_reservation_id uuid,
    p_gateway text,
    p_method text,
    p_deadline_s integer
) returns json
language plpgsql as $$
declare
    v_now timestamptz;
    v_earlier idempotency;
    v_mine reservation;
    v_payment payment;
    v_deadline_at timestamptz;
    v_versions bigint[];
    v_changed jsonb;
begin
    perform pg_advisory_xact_lock(hashtextextended(p_person, 0));
    v_now := clock_timestamp();

    select * into v_earlier from idempotency
    where person = p_person and route = 'pay' and key = p_key and created_at > v_now - key_lifetime();
    if found then
        if v_earlier.body_hash <> p_body_hash then
            return json_build_object('outcome', 'key-reused');
        end if;
        select * into strict v_payment from payment where id = v_earlier.payment_id;
        return json_build_object('outcome', 'replayed', 'payment', payment_facts(v_payment), 'changed', (
            select seat_versions(schedule_id, seats) from reservation where id = v_payment.reservation_id));
    end if;

    select * into v_mine from reservation where id = p_reservation_id and person = p_person for update;
    if not found then
        return json_build_object('outcome', 'not-found');
    elsif v_mine.concert_id <> p_concert_id then
        return json_build_object('outcome', 'wrong-concert');
    elsif v_mine.status = 'confirmed' then
        return json_build_object('outcome', 'already-paid');
    elsif v_mine.status = 'paying' then
        select * into strict v_payment from payment where reservation_id = v_mine.id and status = 'pending';
        return json_build_object('outcome', 'in-progress', 'payment', payment_facts(v_payment));
    elsif v_mine.status <> 'held' or v_mine.expires_at <= v_now then
        return json_build_object('outcome', 'hold-expired', 'status',
                                  case v_mine.status when 'held' then 'expired' else v_mine.status end);
    end if;

    v_deadline_at := least(v_now + make_interval(secs => p_deadline_s), v_mine.hard_cap_at);
    if v_deadline_at > v_mine.expires_at then
        select array_agg(version order by number) into v_versions from (
            select number, version from seat
            where schedule_id = v_mine.schedule_id and number = any (v_mine.seats) and reservation_id = v_mine.id
            order by number
            for update
        ) locked;
        v_changed := change_seats(v_mine.schedule_id, v_mine.seats, v_versions, 'extended', 'held', v_deadline_at,
                                  v_mine.id, v_now);
    end if;
    update reservation set status = 'paying', expires_at = greatest(expires_at, v_deadline_at) where id = v_mine.id;
    insert into payment (reservation_id, gateway, amount, currency, method, status, created_at, deadline_at, next_check_at)
    values (v_mine.id, p_gateway, v_mine.total, v_mine.currency, p_method, 'pending', v_now, v_deadline_at,
            v_now + first_check_after())
    returning * into v_payment;
    insert into idempotency (person, route, key, body_hash, reservation_id, payment_id, created_at)
    values (p_person, 'pay', p_key, p_body_hash, v_mine.id, v_payment.id, v_now)
    on conflict (person, route, key) do update
        set body_hash = excluded.body_hash, reservation_id = excluded.reservation_id,
            payment_id = excluded.payment_id, created_at = excluded.created_at;
    return json_build_object('outcome', 'begun', 'payment', payment_facts(v_payment), 'changed', v_changed);
end $$;
