-- Hold seats for one person: all of them or none. One call is the whole transaction. The seats are those of p_numbers, or
-- the p_best best ones (of p_section, unless that is null), chosen here: see choose_best_seats, also for p_patient.
--
-- Order of locks (the same in every function, so that none waits for another in a circle):
--   person (advisory) → reservation row → seat rows by number.
-- The person's lock makes twins of one request wait for each other and makes the limit exact; the seats' versions make a
-- second sale of a seat impossible even without any lock (see change_seats).
--
-- Answers a JSON object whose "outcome" is one of
--   held             with "answer", the reservation as step 6 shows it, and "changed", the seats' versions (seat_versions)
--   replayed         the same key and body were answered before: with that "answer", and the seats' present versions
--   key-reused       the same key came with another body
--   turn-over        the pass belongs to a turn that is over
--   sale-closed      the operator has ended the sale
--   schedule-unknown, wrong-concert, seats-unknown ("seats"), seats-taken ("seats"), over-limit ("limit", "has")
--   section-unknown, too-few-left ("left")
--   contended        there are seats enough, but others are about to take them: ask again, patiently
-- Only "held" has changed anything.
create or replace function hold_seats(
    p_person text,
    p_key text,
    p_body_hash text,
    p_concert_id bigint,
    p_pass_id text,
    p_schedule_id bigint,
    p_numbers integer[],
    p_hold_ttl_s integer,
    p_hold_cap_s integer,
    p_correlation_id text,
    p_best integer default null,
    p_section text default null,
    p_patient boolean default false
) returns json
language plpgsql
set plan_cache_mode = force_generic_plan  -- the planner would plan for each list of seats anew, to the same plan
set enable_seqscan = off  -- a plan made while the tables are small is kept when they are not
as $$
declare
    v_now timestamptz;
    v_earlier idempotency;
    v_schedule record;
    v_seats record;
    v_numbers integer[] := p_numbers;
    v_has integer;
    v_id uuid := gen_random_uuid();
    v_expires_at timestamptz;
    v_answer json;
    v_changed jsonb;
begin
    perform pg_advisory_xact_lock(hashtextextended(p_person, 0));
    v_now := clock_timestamp();

    select * into v_earlier from idempotency
    where person = p_person and route = 'reserve' and key = p_key and created_at > v_now - key_lifetime();
    if found then
        if v_earlier.body_hash <> p_body_hash then
            return json_build_object('outcome', 'key-reused');
        end if;
        return json_build_object('outcome', 'replayed', 'answer', v_earlier.answer, 'changed', (
            select seat_versions(schedule_id, seats) from reservation where id = v_earlier.reservation_id));
    end if;

    if exists (select from admission where pass_id = p_pass_id and ended_at is not null) then
        return json_build_object('outcome', 'turn-over');
    end if;

    select s.concert_id, c.currency, c.seats_per_person_max, c.sales_closed_at into v_schedule
    from schedule s join concert c on c.id = s.concert_id
    where s.id = p_schedule_id;
    if not found then
        return json_build_object('outcome', 'schedule-unknown');
    elsif v_schedule.concert_id <> p_concert_id then
        return json_build_object('outcome', 'wrong-concert');
    elsif v_schedule.sales_closed_at <= v_now then
        return json_build_object('outcome', 'sale-closed');
    end if;

    -- Before any seat is locked: who may have no more keeps nobody from one.
    v_has := seats_of_person(p_person, p_concert_id, v_now);
    if v_has + coalesce(p_best, cardinality(p_numbers)) > v_schedule.seats_per_person_max then
        return json_build_object('outcome', 'over-limit', 'limit', v_schedule.seats_per_person_max, 'has', v_has);
    end if;

    if p_best is not null then
        v_numbers := choose_best_seats(p_schedule_id, p_best, p_section, v_now, p_patient);
        if cardinality(v_numbers) < p_best then
            return too_few_seats(p_schedule_id, p_best, p_section, v_now);
        end if;
    end if;
    select array_agg(number order by number) as numbers,
           array_agg(version order by number) as versions,
           array_agg(number order by number) filter (
               where state = 'sold' or (state = 'held' and held_until > v_now)) as taken,
           sum(price) as total,
           max(number) - min(number) = count(*) - 1 and min(section) = max(section)
           and min(row_label) = max(row_label) as side_by_side
    into v_seats
    from (
        select number, version, state, held_until, price, section, row_label from seat
        where schedule_id = p_schedule_id and number = any (v_numbers)
        order by number
        for update
    ) locked;
    if v_seats.numbers is null or cardinality(v_seats.numbers) < cardinality(v_numbers) then
        return json_build_object('outcome', 'seats-unknown', 'seats', (
            select json_agg(n order by n) from unnest(v_numbers) n where n <> all (coalesce(v_seats.numbers, '{}'))));
    elsif v_seats.taken is not null then
        return json_build_object('outcome', 'seats-taken', 'seats', to_json(v_seats.taken));
    end if;

    v_expires_at := v_now + make_interval(secs => least(p_hold_ttl_s, p_hold_cap_s));
    v_answer := json_strip_nulls(json_build_object(
        'reservation_id', v_id, 'status', 'held', 'schedule_id', p_schedule_id, 'seats', to_json(v_seats.numbers),
        'side_by_side', case when p_best is not null then v_seats.side_by_side end,
        'total', v_seats.total, 'currency', v_schedule.currency, 'expires_at', rfc3339(v_expires_at)));

    insert into reservation (id, concert_id, schedule_id, person, pass_id, seats, total, currency, status,
                             created_at, expires_at, hard_cap_at, event_seq)
    values (v_id, p_concert_id, p_schedule_id, p_person, p_pass_id, v_seats.numbers, v_seats.total, v_schedule.currency,
            'held', v_now, v_expires_at, v_now + make_interval(secs => p_hold_cap_s), 1);
    v_changed := change_seats(p_schedule_id, v_seats.numbers, v_seats.versions, 'held', 'held', v_expires_at, v_id,
                              v_now);
    insert into idempotency (person, route, key, body_hash, reservation_id, answer, created_at)
    values (p_person, 'reserve', p_key, p_body_hash, v_id, v_answer, v_now)
    on conflict (person, route, key) do update
        set body_hash = excluded.body_hash, reservation_id = excluded.reservation_id,
            answer = excluded.answer, created_at = excluded.created_at;
    insert into outbox (type, reservation_id, seq, occurred_at, correlation_id, data)
    values ('reservation.held', v_id, 1, v_now, p_correlation_id,
            v_answer::jsonb || jsonb_build_object('concert_id', p_concert_id, 'person', p_person));
    return json_build_object('outcome', 'held', 'answer', v_answer, 'changed', v_changed);
end $$;
