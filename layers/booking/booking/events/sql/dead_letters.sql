-- Dead letters of a state (null: of all), the newest last, as JSON; applied_at: when the record took effect after all.
select coalesce(json_agg(shown order by shown.id), '[]')::text
from (
    select d.id, d.state, d.consumer, d.event_id, d.type, d.reservation_id, d.correlation_id, d.topic, d.partition,
           d."offset", d.error, d.transient, d.attempts, d.redrives, rfc3339(d.first_seen_at) as first_seen_at,
           rfc3339(d.last_seen_at) as last_seen_at, rfc3339(d.redriven_at) as redriven_at,
           rfc3339(d.discarded_at) as discarded_at, d.discarded_by, d.discard_reason,
           case when d.state <> 'discarded' then rfc3339(i.done_at) end as applied_at
    from dead_letter d left join inbox i on i.consumer = d.consumer and i.event_id = d.event_id
    where (cast(:state as text) is null or d.state = :state) and (cast(:id as bigint) is null or d.id = :id)
    order by d.id desc
    limit cast(:limit as integer)
) shown
