-- The first half of what every consumer does with a batch of events: which of them act. Their inbox rows are written in
-- the caller's transaction, so an event that comes again (a redrive, a replay of the whole topic) acts once.
--
-- p_events: [{"event_id", "type", "reservation_id", "seq", "data", …}]. Answers each event once, with its outcome:
-- applied  it acts now
-- seen     it has acted before
-- void     it tells of a commit that was lost: it was published, and then a failover without synchronous replication made
--          a server the primary that had not got it. No outbox row has its id (as of one that was pruned), and the
--          reservation is not there, has not come so far, or has had another event of that number since
create or replace function take_events(p_consumer text, p_events jsonb)
returns table (event_id uuid, type text, reservation_id uuid, event jsonb, outcome text)
language plpgsql
rows 10  -- not the 1,000 that the planner would guess, for which it reads whole tables
as $$
#variable_conflict use_column
begin
    return query
    with given as (
        select distinct on (1) (e ->> 'event_id')::uuid as event_id, e ->> 'type' as type,
               (e ->> 'reservation_id')::uuid as reservation_id, (e ->> 'seq')::integer as seq, e as event
        from jsonb_array_elements(p_events) e
        order by 1  -- two batches with events in common take their rows in the same order
    ), fresh as (
        insert into inbox as i (consumer, event_id, attempts, done_at)
        select p_consumer, g.event_id, 1, clock_timestamp() from given g order by g.event_id
        on conflict (consumer, event_id) do update set attempts = i.attempts + 1, done_at = excluded.done_at
            where i.done_at is null
        returning i.event_id
    )
    select g.event_id, g.type, g.reservation_id, g.event, case
        when f.event_id is null then 'seen'
        when not exists (select from outbox o where o.event_id = g.event_id) and (
            r.id is null or r.event_seq < g.seq
            or exists (select from outbox o where o.reservation_id = g.reservation_id and o.seq = g.seq)
        ) then 'void'
        else 'applied' end
    from given g
    left join fresh f on f.event_id = g.event_id
    left join reservation r on r.id = g.reservation_id;
end $$;
