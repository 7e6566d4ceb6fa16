-- A moment as the waiting line writes it: Unix time in whole microseconds.
create or replace function microseconds(p_at timestamptz) returns bigint
language sql immutable parallel safe as $$
    select (extract(epoch from p_at) * 1000000)::bigint
$$;
