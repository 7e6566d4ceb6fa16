-- How many seats of a concert a person holds or owns: what the limit counts. The caller holds the person's lock.
create or replace function seats_of_person(p_person text, p_concert_id bigint, p_at timestamptz) returns integer
language plpgsql stable as $$
begin
    return (
        select coalesce(sum(cardinality(seats)), 0)::integer from reservation
        where person = p_person and concert_id = p_concert_id
          and (status = 'confirmed' or (status in ('held', 'paying') and expires_at > p_at))
    );
end $$;
