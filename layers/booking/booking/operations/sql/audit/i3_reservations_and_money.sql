-- I3, the database's side: what each reservation with a payment should have left at the gateways, and whether its money
-- is still on its way (younger than the grace, or paying before its cap).
select r.id::text,
       case when r.status = 'confirmed' then r.total else 0 end,
       r.status,
       coalesce(bool_or(
           (p.status = 'pending' and clock_timestamp() < r.hard_cap_at)
           or (p.status in ('pending', 'refunding') and greatest(p.created_at, r.closed_at)
               > clock_timestamp() - make_interval(secs => cast(:grace_s as integer)))
       ), false)
from reservation r join payment p on p.reservation_id = r.id
group by r.id
