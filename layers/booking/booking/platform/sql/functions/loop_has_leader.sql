-- Whether a run of a background loop leads just now (booking.platform.loops): somebody has the lock of this key.
create or replace function loop_has_leader(p_key integer) returns boolean
language sql stable as $$
    select exists (
        select from pg_locks
        where locktype = 'advisory' and classid = 6647395 and objid = p_key::oid and objsubid = 2 and granted
          and database = (select oid from pg_database where datname = current_database()))
$$;
