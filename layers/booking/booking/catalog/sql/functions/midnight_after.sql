-- The next midnight of a time zone, by its calendar: a day there may have 23 or 25 hours, and where the clocks skip
-- midnight the day begins when they have.
create or replace function midnight_after(p_at timestamptz, p_timezone text) returns timestamptz
language sql immutable as $$
    select (date_trunc('day', p_at at time zone p_timezone) + interval '1 day') at time zone p_timezone
$$;
