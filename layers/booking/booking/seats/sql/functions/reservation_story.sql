-- What became of a reservation, as JSON, oldest first: each change of its seats from the ledger, what became of its
-- payments, and its end. Of one moment the payment comes first: it is why the seats changed.
--
--   held, extended                "seats", "until"
--   sold, released, expired, refunded   "seats": those that it still had
--   displaced                     "seats": its hold had lapsed and somebody else holds these now
--   payment.begun                 "payment_id", "amount", "method"
--   payment.captured, payment.declined, payment.refunded   "payment_id", "detail"; of a payment that was refunded only
--                                 the refund's moment is known, the capture's is that of "sold"
--   closed                        "status": where it ended without a seat of its own left
create or replace function reservation_story(p_reservation reservation) returns json
language sql stable as $$
    with changes as (
        select l.at, 1 as rank, json_build_object(
            'at', rfc3339(l.at), 'event', l.event, 'seats', json_agg(l.number order by l.number),
            'until', rfc3339(l.held_until)) as entry
        from seat_ledger l
        where l.reservation_id = p_reservation.id
        group by l.at, l.event, l.held_until
        union all
        select l.at, 1, json_build_object(
            'at', rfc3339(l.at), 'event', 'displaced', 'seats', json_agg(l.number order by l.number))
        from seat_ledger l
        where l.schedule_id = p_reservation.schedule_id and l.number = any (p_reservation.seats)
          and l.displaced_reservation_id = p_reservation.id
        group by l.at
    ), payments as (
        select p.created_at as at, 0 as rank, json_build_object(
            'at', rfc3339(p.created_at), 'event', 'payment.begun', 'payment_id', p.id, 'amount', p.amount,
            'method', p.method) as entry
        from payment p where p.reservation_id = p_reservation.id
        union all
        select p.settled_at, 0, json_build_object(
            'at', rfc3339(p.settled_at),
            -- A refund that the firm has yet to confirm: what is known is the capture.
            'event', 'payment.' || case p.status when 'refunding' then 'captured' else p.status end,
            'payment_id', p.id, 'detail', p.detail)
        from payment p where p.reservation_id = p_reservation.id and p.settled_at is not null
    ), ending as (
        select p_reservation.closed_at as at, 2 as rank, json_build_object(
            'at', rfc3339(p_reservation.closed_at), 'event', 'closed', 'status', p_reservation.status) as entry
        where p_reservation.closed_at is not null
          and not exists (select from changes where at = p_reservation.closed_at)
    )
    select json_agg(json_strip_nulls(entry) order by at, rank)
    from (select * from changes union all select * from payments union all select * from ending) everything
$$;
