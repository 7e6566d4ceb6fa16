-- A moment as RFC 3339 text in UTC with milliseconds, the one form that answers and events use.
-- Stable, as to_char is: only so is it put in place of its calls instead of being planned at each.
create or replace function rfc3339(p_at timestamptz) returns text
language sql stable parallel safe as $$
    select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;
