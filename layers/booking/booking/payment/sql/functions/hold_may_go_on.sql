-- The versions of a reservation's seats, in number order, if they are all still its own and the person's limit allows them;
-- null: the hold cannot go on. Locks the seats. A lapsed hold no longer counts towards the limit: the person may have taken
-- other seats in the meantime.
create or replace function hold_may_go_on(p_mine reservation, p_at timestamptz) returns bigint[]
language plpgsql as $$
declare
    v_seats record;
begin
    select array_agg(version order by number) as versions, bool_and(reservation_id is not distinct from p_mine.id) as own
    into v_seats
    from (
        select number, version, reservation_id from seat
        where schedule_id = p_mine.schedule_id and number = any (p_mine.seats)
        order by number
        for update
    ) locked;
    if v_seats.own and (
        p_mine.expires_at > p_at
        or seats_of_person(p_mine.person, p_mine.concert_id, p_at) + cardinality(p_mine.seats)
           <= (select seats_per_person_max from concert where id = p_mine.concert_id)
    ) then
        return v_seats.versions;
    end if;
    return null;
end $$;
