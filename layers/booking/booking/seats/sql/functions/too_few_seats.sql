-- What hold_seats answers when it could not lock so many of the best seats. Whoever was counted and is not left was sold,
-- so nobody is refused while there are enough: then somebody else is about to take them, or has changed their mind.
create or replace function too_few_seats(
    p_schedule_id bigint,
    p_count integer,
    p_section text,
    p_at timestamptz
) returns json
language plpgsql as $$
declare
    v_seats record;
begin
    select count(*) as of_section,
           count(*) filter (where state = 'available' or (state = 'held' and held_until <= p_at)) as free
    into v_seats
    from seat
    where schedule_id = p_schedule_id and (p_section is null or section = p_section);
    if v_seats.free >= p_count then
        return json_build_object('outcome', 'contended');
    elsif v_seats.of_section = 0 and p_section is not null then
        return json_build_object('outcome', 'section-unknown');
    end if;
    return json_build_object('outcome', 'too-few-left', 'left', v_seats.free);
end $$;
