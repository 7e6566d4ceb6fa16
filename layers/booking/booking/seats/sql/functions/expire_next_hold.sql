-- Close the next lapsed hold after p_after and put its seats back: one in a transaction, so that holds by number and
-- sweeps by time never wait for each other in a circle. A hold that somebody is working on is left for the next sweep, and
-- so is one whose seats are locked for longer than a moment. A reservation with a payment under way is not touched:
-- settling it decides.
-- Answers {"expires_at", "closed", "changed"}, null when there is none left; "changed": the versions of the seats that were
-- put back (seat_versions), null when none was.
create or replace function expire_next_hold(p_after timestamptz, p_correlation_id text) returns json
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_lapsed reservation;
    v_changed jsonb;
begin
    select * into v_lapsed from reservation
    where status = 'held' and expires_at <= v_now and expires_at > p_after
    order by expires_at
    limit 1
    for update skip locked;
    if not found then
        return null;
    end if;
    begin
        perform set_config('lock_timeout', '100ms', true);
        v_changed := release_seats(v_lapsed, 'expired', v_now);
    exception when lock_not_available then
        return json_build_object('expires_at', v_lapsed.expires_at, 'closed', false);
    end;
    update reservation set status = 'expired', closed_at = v_now where id = v_lapsed.id;
    perform emit_event(v_lapsed.id, 'reservation.expired', reservation_facts(v_lapsed), p_correlation_id, v_now);
    return json_build_object('expires_at', v_lapsed.expires_at, 'closed', true, 'changed', v_changed);
end $$;
