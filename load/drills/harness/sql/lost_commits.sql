-- Of what people were told is done, what this server does not have as done by a moment.
--
-- :kinds, :ids  what and which reservation, side by side ('held', 'cancelled', 'paid')
-- :by           Unix time in seconds: what was done later (by a job, once more) is not what they were told of
with told as (
    select kind, cast(id as uuid) as id
    from unnest(cast(:kinds as text[]), cast(:ids as text[])) as t (kind, id)
)
select told.kind, told.id::text
from told left join reservation r on r.id = told.id
where case told.kind
    when 'held' then r.id is null
    when 'cancelled' then r.closed_at is null or r.closed_at > to_timestamp(cast(:by as double precision))
    else not exists (
        select from payment p
        where p.reservation_id = told.id and p.settled_at <= to_timestamp(cast(:by as double precision))
          and p.status in ('captured', 'refunding', 'refunded'))
end
