-- Put back those of a reservation's seats that are still its own. The caller holds the reservation's row lock.
-- Answers as change_seats, null when none was its own.
create or replace function release_seats(p_reservation reservation, p_event text, p_at timestamptz) returns jsonb
language plpgsql as $$
declare
    v_own record;
begin
    select array_agg(number order by number) as numbers, array_agg(version order by number) as versions into v_own
    from (
        select number, version, reservation_id from seat
        where schedule_id = p_reservation.schedule_id and number = any (p_reservation.seats)
        order by number
        for update
    ) locked
    where reservation_id = p_reservation.id;
    if v_own.numbers is null then
        return null;
    end if;
    return change_seats(p_reservation.schedule_id, v_own.numbers, v_own.versions, p_event, 'available', null,
                        p_reservation.id, p_at);
end $$;
