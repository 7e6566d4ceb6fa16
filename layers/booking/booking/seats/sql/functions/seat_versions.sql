-- The present versions of seats: {"schedule_id", "versions": {number: version}}. What a change hands back, so that whoever
-- made it can tell the cache of the seat maps, and what it hands back once more when it is asked again: the first may have
-- died before it told.
create or replace function seat_versions(p_schedule_id bigint, p_numbers integer[]) returns jsonb
language plpgsql stable strict as $$
begin
    return (
        select jsonb_build_object('schedule_id', p_schedule_id, 'versions', coalesce(jsonb_object_agg(number, version), '{}'))
        from seat where schedule_id = p_schedule_id and number = any (p_numbers)
    );
end $$;
