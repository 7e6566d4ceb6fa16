-- What people have not been told yet, the oldest first; what could not be sent stands back behind the rest.
select n.event_id::text, rfc3339(n.created_at), n.person, n.reservation_id::text, n.kind, n.data::text, t.code
from notice n left join ticket t on t.reservation_id = n.reservation_id and t.revoked_at is null
where n.sent_at is null
order by n.attempts, n.created_at
limit cast(:limit as integer)
