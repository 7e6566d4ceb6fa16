-- Forget idempotency keys whose lifetime is over, some at a time so that no statement takes long.
with old as (
    select person, route, key from idempotency
    where created_at < clock_timestamp() - key_lifetime()
    limit cast(:limit as integer)
)
delete from idempotency i using old
where i.person = old.person and i.route = old.route and i.key = old.key
returning 1
