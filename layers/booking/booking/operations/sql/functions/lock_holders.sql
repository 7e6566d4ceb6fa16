-- The transactions of this database that are older than p_older_than_s and hold what stops a sale: rows of seats,
-- reservations or payments, a table that each hold writes or reads as a whole, or a person (see hold_seats). Who looks is
-- not among them.
--
-- A row's lock lies in the row; what shows is the lock of its table, and that its transaction has an id. Since when a lock is
-- held nobody knows, so the transaction's age stands for it: no transaction of the sale outlives statement_timeout.
-- "waiting" counts the sessions that cannot go on before this one ends, also those that queue behind one another.
-- Never among them: replication, autovacuum, sessions outside a transaction (the loops' leaders), and who waits for a
-- lock themselves: not they sit there, and they go on as soon as the one in front has ended. Nor a commit that waits for its
-- replica: it is done already, and to end it would show what a failover may still lose.
create or replace function lock_holders(p_older_than_s double precision)
returns table (
    pid integer, started_at timestamptz, held_s double precision, role text, application_name text, client text,
    state text, query text, holds text[], waiting integer
)
language plpgsql as $$
declare
    v_old integer[];
begin
    perform pg_stat_clear_snapshot();  -- a transaction sees the sessions as they were when it first looked
    select array_agg(a.pid) into v_old
    from pg_stat_activity a
    where a.datname = current_database() and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
      and a.xact_start < clock_timestamp() - make_interval(secs => p_older_than_s);
    if v_old is null then
        return;  -- nearly always: the locks, which everybody shares, are not even looked at
    end if;
    return query
    with recursive of_sale (oid, name, is_written, by_row) as (
        values ('seat'::regclass::oid, 'seat', true, true), ('reservation'::regclass, 'reservation', true, true),
               ('payment'::regclass, 'payment', true, true), ('seat_ledger'::regclass, 'seat_ledger', true, false),
               ('idempotency'::regclass, 'idempotency', true, false), ('outbox'::regclass, 'outbox', true, false),
               ('admission'::regclass, 'admission', true, false), ('schedule'::regclass, 'schedule', false, false),
               ('concert'::regclass, 'concert', false, false)
        union all
        select inhrelid, 'seat', true, true from pg_inherits where inhparent = 'seat'::regclass
    ), locked as materialized (
        select l.* from pg_locks l
    ), holder as materialized (
        select a.pid, array_agg(distinct coalesce(s.name, 'person') order by coalesce(s.name, 'person')) as holds
        from pg_stat_activity a
        join locked l on l.pid = a.pid and l.granted
            and l.database = (select oid from pg_database where datname = current_database())
        left join of_sale s on l.locktype = 'relation' and s.oid = l.relation
        where a.pid = any (v_old)
          and (a.wait_event is null or a.wait_event <> 'SyncRep')
          and not exists (select from locked w where w.pid = a.pid and not w.granted)
          and (s.oid is not null and (
                   s.by_row and l.mode in ('RowShareLock', 'RowExclusiveLock') and a.backend_xid is not null
                   or s.is_written and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock')
                   or l.mode = 'AccessExclusiveLock')
               -- Persons are one big key; the loops' leaders have two small ones.
               or l.locktype = 'advisory' and l.objsubid = 1)
        group by a.pid
    ), blocked as materialized (
        select w.pid, blocker.pid as by_pid
        from (select distinct l.pid from locked l where not l.granted) w,
             unnest(pg_blocking_pids(w.pid)) as blocker (pid)
        where exists (select from holder)
    ), behind (holder_pid, pid) as (
        select h.pid, b.pid from holder h join blocked b on b.by_pid = h.pid
        union
        select n.holder_pid, b.pid from behind n join blocked b on b.by_pid = n.pid
    )
    select a.pid, a.xact_start, extract(epoch from clock_timestamp() - a.xact_start)::double precision,
           a.usename::text, a.application_name, host(a.client_addr), a.state, a.query, h.holds,
           (select count(*)::integer from behind where behind.holder_pid = a.pid)
    from holder h join pg_stat_activity a on a.pid = h.pid
    order by a.xact_start;
end $$;
