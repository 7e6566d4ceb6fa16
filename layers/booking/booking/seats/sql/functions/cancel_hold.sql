-- Give back a hold that has no payment under way. Outcomes: cancelled, already (nothing left to give back: with the
-- "status"), paying, confirmed (the payment must be dealt with first), not-found (also for a stranger's).
-- cancelled and already come with "changed", the versions of the seats (seat_versions; null: none has changed).
--
-- Takes the person's lock as a hold does: else seats given back while a hold of the same person is under way would be the
-- person's until after that hold began, by the ledger's times, and count twice towards the limit.
create or replace function cancel_hold(p_person text, p_reservation_id uuid, p_correlation_id text) returns json
language plpgsql as $$
declare
    v_now timestamptz;
    v_mine reservation;
    v_changed jsonb;
begin
    perform pg_advisory_xact_lock(hashtextextended(p_person, 0));
    select * into v_mine from reservation where id = p_reservation_id and person = p_person for update;
    v_now := clock_timestamp();
    if not found then
        return json_build_object('outcome', 'not-found');
    elsif v_mine.status in ('paying', 'confirmed') then
        return json_build_object('outcome', v_mine.status);
    elsif v_mine.status <> 'held' then
        return json_build_object('outcome', 'already', 'status', v_mine.status,
                                 'changed', seat_versions(v_mine.schedule_id, v_mine.seats));
    end if;
    v_changed := release_seats(v_mine, 'released', v_now);
    update reservation set status = 'cancelled', closed_at = v_now where id = v_mine.id;
    perform emit_event(v_mine.id, 'reservation.cancelled', reservation_facts(v_mine), p_correlation_id, v_now);
    return json_build_object('outcome', 'cancelled', 'changed', v_changed);
end $$;
