-- What became of a reservation, as JSON, oldest first: each change of its seats from the ledger, what became of its
-- payments, and its end. Of one moment the payment comes first: it is why the seats changed.
--
--   held, extended                "seats", "until"
--   sold, released, expired, refunded   "seats": those that it still had
--   displaced                     "seats": its hold had lapsed and somebody else holds these now
--   payment.begun                 "payment_id", "amount", "method", "gateway"
--   payment.pending               "payment_id": its outcome was open
--   payment.switched              "payment_id", "from", "to": the first firm surely took nothing; "detail": why that is sure
--   payment.captured, payment.declined   "payment_id", "detail"
--   payment.refunded              "payment_id": the firm has confirmed that the money went back
--   closed                        "status": where it ended without a seat of its own left
-- In PL/pgSQL, which keeps the plan: it would be planned anew at each call, which took three times as long as the rest.
create or replace function reservation_story(p_reservation reservation) returns json
language plpgsql stable as $$
begin
    return (
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
                'method', p.method, 'gateway', coalesce(p.turned_from, p.gateway)) as entry
            from payment p where p.reservation_id = p_reservation.id
            union all
            select turn.at, turn.rank, json_build_object(
                'at', rfc3339(turn.at), 'event', 'payment.' || turn.event, 'payment_id', p.id, 'detail', turn.detail,
                'from', case turn.event when 'switched' then p.turned_from end,
                'to', case turn.event when 'switched' then p.gateway end)
            from payment p cross join lateral (values
                (p.pending_at, 0, 'pending', null),
                (p.turned_at, 0, 'switched', p.turn_reason),
                (p.captured_at, 0, 'captured', p.detail),
                (case p.status when 'declined' then p.settled_at end, 0, 'declined', p.detail),
                -- Where no sale came between, the refund comes last.
                (case p.status when 'refunded' then p.settled_at end, 3, 'refunded', null)
            ) turn (at, rank, event, detail)
            where p.reservation_id = p_reservation.id and turn.at is not null
        ), ending as (
            select p_reservation.closed_at as at, 2 as rank, json_build_object(
                'at', rfc3339(p_reservation.closed_at), 'event', 'closed', 'status', p_reservation.status) as entry
            where p_reservation.closed_at is not null
              and not exists (select from changes where at = p_reservation.closed_at)
        )
        select json_agg(json_strip_nulls(entry) order by at, rank)
        from (select * from changes union all select * from payments union all select * from ending) everything
    );
end $$;
