-- Close the holds that have lapsed and put their seats back; at most p_limit of them, skipping those that somebody else
-- is working on. A reservation with a payment under way is not touched: settling it decides.
-- Answers how many were closed and which seats of which schedules came back.
create or replace function expire_holds(p_limit integer, p_correlation_id text) returns jsonb
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_lapsed reservation;
    v_count integer := 0;
begin
    for v_lapsed in
        select * from reservation
        where status = 'held' and expires_at <= v_now
        order by expires_at
        limit p_limit
        for update skip locked
    loop
        perform release_seats(v_lapsed, 'expired', v_now);
        update reservation set status = 'expired', closed_at = v_now where id = v_lapsed.id;
        perform emit_event(v_lapsed.id, 'reservation.expired', reservation_facts(v_lapsed), p_correlation_id, v_now);
        v_count := v_count + 1;
    end loop;
    return to_jsonb(v_count);
end $$;
