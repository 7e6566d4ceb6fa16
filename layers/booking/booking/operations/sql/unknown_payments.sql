-- Of these keys of a gateway, those under which no payment is known there. One that is known at another gateway has turned
-- away from this one, which took nothing, or its turn to this one was lost.
select key from unnest(cast(:keys as text[])) key
where not exists (
    select from payment
    where gateway = :gateway and id = case when key ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then cast(key as uuid) end
)
