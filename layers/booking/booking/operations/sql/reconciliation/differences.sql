-- Where the copied books of :gateways and the payments there do not agree: a row for each key of a gateway, in the order of
-- the books, and what is in no book last.
--
-- A payment that is captured here must be charged there in full, and nothing of it refunded; one that is declined or
-- refunded must have left no money there; what is owed or still pending is always shown while money lies there, since it
-- is on its way. A charge is also held against its reservation, amount and currency.
-- in_flight: the work is younger than :grace_s, or paying before its cap. A charge without a payment never is: a payment is
-- committed before its gateway is asked, and the books were copied before this statement began.
with book as (
    select *, count(*) filter (where charged > refunded) over (partition by order_id) as charges_of_order
    from (
        select gateway, key, min(seq) as seq, max(order_id) as order_id, max(currency) as currency,
               coalesce(sum(amount) filter (where kind = 'charge'), 0)::bigint as charged,
               coalesce(sum(amount) filter (where kind = 'refund'), 0)::bigint as refunded
        from book_entry
        where gateway = any (cast(:gateways as text[]))
        group by gateway, key
    ) by_key
), payment_there as (
    select * from payment where gateway = any (cast(:gateways as text[]))
)
select coalesce(b.gateway, p.gateway), coalesce(b.key, p.id::text), coalesce(b.order_id, p.reservation_id::text),
       coalesce(b.charged, 0), coalesce(b.refunded, 0), coalesce(b.currency, p.currency),
       coalesce(b.charges_of_order, 0),
       coalesce(p.gateway, elsewhere.gateway), r.id::text, coalesce(p.amount, elsewhere.amount),
       coalesce(p.currency, elsewhere.currency), coalesce(p.status, elsewhere.status),
       r.id is not null and (
           greatest(p.created_at, p.settled_at, elsewhere.created_at, elsewhere.settled_at, r.closed_at)
               > clock_timestamp() - make_interval(secs => cast(:grace_s as integer))
           or (coalesce(p.status, elsewhere.status) = 'pending' and clock_timestamp() < r.hard_cap_at)
       ) as in_flight
from payment_there p
full join book b on b.key = p.id::text and b.gateway = p.gateway
left join payment elsewhere on p.id is null and elsewhere.id::text = b.key
left join reservation r on r.id = coalesce(p.reservation_id, elsewhere.reservation_id)
where case
    when p.id is null then b.charged <> b.refunded
    when b.key is null then p.status in ('captured', 'refunding')
    else b.order_id <> p.reservation_id::text
        or b.currency <> p.currency
        or (b.charged <> 0 and b.charged <> p.amount)
        or case p.status
               when 'captured' then b.charged - b.refunded <> p.amount
               when 'refunding' then true
               else b.charged <> b.refunded
           end
end
order by b.gateway, b.seq, p.created_at
