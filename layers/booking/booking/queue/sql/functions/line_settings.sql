-- The settings of a concert's line as its gate in Redis has them: the newest gate_change and the state of the sale; null
-- when there is no such concert. "change_id" is null while nobody has set or started the line. Times are Unix times in
-- microseconds. "seed" (empty: first come, first served) is for the line alone: hidden until the sale opens.
create or replace function line_settings(p_concert_id bigint) returns json
language plpgsql stable as $$
declare
    v_gate gate_change := gate_in_force(p_concert_id);
begin
    return (
        select json_build_object(
            'change_id', v_gate.id,
            'epoch', v_gate.epoch,
            'state', case when sales_closed_at <= clock_timestamp() then 'closed' else v_gate.state end,
            'capacity', v_gate.capacity,
            'rate', v_gate.rate_per_s,
            'paused', v_gate.paused::integer,
            'message', coalesce(v_gate.message, ''),
            'opens_us', microseconds(sales_open_at),
            'sold_out', line_sold_out(id)::integer,
            'seed', coalesce(draw_seed, ''))
        from concert where id = p_concert_id);
end $$;
