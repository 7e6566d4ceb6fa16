-- The only statement that changes a seat: the row, its version and its ledger entry together. It changes seats only as
-- the caller has read them (p_versions, one for each number): whoever read an older state changes nothing and the whole
-- transaction ends with serialization_failure. That check, not any lock, is what guards a sale.
-- Answers what the cache of the seat maps must be told, in the shape of seat_versions.
create or replace function change_seats(
    p_schedule_id bigint,
    p_numbers integer[],
    p_versions bigint[],
    p_event text,
    p_state text,
    p_held_until timestamptz,
    p_reservation_id uuid,
    p_at timestamptz
) returns jsonb
language plpgsql as $$
declare
    v_changed integer;
    v_versions jsonb;
begin
    with wanted as (
        select number, version from unnest(p_numbers, p_versions) as w (number, version)
    ), before as (
        select number, reservation_id from seat
        where schedule_id = p_schedule_id and number = any (p_numbers)
    ), changed as (
        update seat s set
            state = p_state,
            version = s.version + 1,
            held_until = p_held_until,
            reservation_id = case when p_state = 'available' then null else p_reservation_id end
        from wanted w
        where s.schedule_id = p_schedule_id and s.number = w.number and s.version = w.version
        returning s.number, s.version
    ), entered as (
        insert into seat_ledger (schedule_id, number, version, event, state, held_until, reservation_id,
                                 displaced_reservation_id, at)
        select p_schedule_id, c.number, c.version, p_event, p_state, p_held_until, p_reservation_id,
               case when b.reservation_id <> p_reservation_id then b.reservation_id end, p_at
        from changed c join before b using (number)
        returning number, version
    )
    select count(*), jsonb_object_agg(number, version) into v_changed, v_versions from entered;
    if v_changed <> cardinality(p_numbers) then
        raise exception 'seats % of schedule % have changed since they were read', p_numbers, p_schedule_id
            using errcode = 'serialization_failure';
    end if;
    return jsonb_build_object('schedule_id', p_schedule_id, 'versions', v_versions);
end $$;
