-- What a batch of events does to the sales read model, each event once (take_events): seats sold, by schedule and by
-- concert. The counters only add and take away, so the order of the events does not matter.
-- Answers {"outcomes": {event_id: outcome}, "moved": [{"concert_id", "sold_out"}]}: the concerts whose counters have moved.
create or replace function count_sales(p_events jsonb) returns json
language plpgsql as $$
declare
    v_outcomes json;
    v_moved jsonb;
    v_one record;
begin
    with taken as materialized (select * from take_events('sales', p_events)),
    moved as (
        select r.concert_id, r.schedule_id, sum(cardinality(r.seats) *
            case t.type when 'reservation.confirmed' then 1 else -1 end) as seats
        from taken t join reservation r on r.id = t.reservation_id
        where t.outcome = 'applied' and t.type in ('reservation.confirmed', 'reservation.refunded')
        group by r.concert_id, r.schedule_id
    )
    select (select json_object_agg(event_id, outcome) from taken),
           (select coalesce(jsonb_agg(moved), '[]') from moved)
    into v_outcomes, v_moved;

    -- One after another in the order of their keys: batches side by side wait for each other, and never in a circle.
    for v_one in
        select m.schedule_id, m.seats from jsonb_to_recordset(v_moved) m(schedule_id bigint, seats integer) order by 1
    loop
        update schedule_sales set seats_sold = seats_sold + v_one.seats where schedule_id = v_one.schedule_id;
    end loop;
    for v_one in
        select m.concert_id, sum(m.seats)::integer as seats from jsonb_to_recordset(v_moved) m(concert_id bigint, seats integer)
        group by 1 order by 1
    loop
        insert into concert_sales as c (concert_id, seats_sold) values (v_one.concert_id, v_one.seats)
        on conflict (concert_id) do update set seats_sold = c.seats_sold + excluded.seats_sold;
    end loop;
    return json_build_object('outcomes', v_outcomes, 'moved', (
        select coalesce(json_agg(json_build_object('concert_id', concert_id, 'sold_out', line_sold_out(concert_id))), '[]')
        from (select distinct (m ->> 'concert_id')::bigint as concert_id from jsonb_array_elements(v_moved) m) concerts));
end $$;
