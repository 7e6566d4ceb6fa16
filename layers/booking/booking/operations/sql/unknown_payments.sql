-- Of these keys of a gateway, those under which no payment is known.
select key from unnest(cast(:keys as text[])) key
where not exists (
    select from payment
    where id = case when key ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then cast(key as uuid) end
)
