-- The payment of a reservation that is under way, if there is one.
select id::text, reservation_id::text, gateway, amount, currency, method, status,
       deadline_at <= clock_timestamp() as past_deadline, cancelling, pending_at is null as untold
from payment where reservation_id = cast(:reservation_id as uuid) and status in ('pending', 'refunding')
