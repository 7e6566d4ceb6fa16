-- How many payments are pending or owed back, of at most 1,000: of those whose next check is due or comes within 15 minutes.
select count(*) from (
    select from payment
    where status in ('pending', 'refunding') and next_check_at <= now() + interval '15 minutes'
    limit 1000
) unsettled
